import { OrdersService } from '../src/orders/orders.service';

describe('OrdersService', () => {
  it('delivers on working days', () => {
    expect(new OrdersService().delivery('2024-07-05T08:00:00Z', 'UTC')).toBe('2024-07-09 +00:00');
  });
});
