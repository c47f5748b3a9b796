import { Injectable, NotFoundException } from '@nestjs/common';
import dayjs from 'dayjs';
import timezone from 'dayjs/plugin/timezone';
import utc from 'dayjs/plugin/utc';
import { Order } from './order';

dayjs.extend(utc);
dayjs.extend(timezone);

@Injectable()
export class OrdersService {
  private readonly orders: Order[] = [
    { id: 1, customer: 'Ada Lovelace', cents: 129900, placed: '2024-03-30T22:30:00Z' },
    { id: 2, customer: 'Grace Hopper', cents: 4250, placed: '2024-07-01T08:00:00Z' },
    { id: 3, customer: 'Edsger Dijkstra', cents: 78000, placed: '2024-11-11T11:11:00Z' },
  ];

  page(offset: number, limit: number): Order[] {
    return this.orders.slice(offset, offset + limit);
  }

  byId(id: number): Order {
    const order = this.orders.find((candidate) => candidate.id === id);
    if (!order) {
      throw new NotFoundException(`no order ${id}`);
    }
    return order;
  }

  /** The second working day after the order, where the customer is. */
  delivery(placed: string, zone: string): string {
    let day = dayjs.utc(placed).tz(zone);
    for (let left = 2; left > 0; ) {
      day = dayjs.tz(day.add(1, 'day').format('YYYY-MM-DDTHH:mm:ss'), zone); // the offset may change overnight
      left -= day.day() % 6 === 0 ? 0 : 1;
    }
    return day.format('YYYY-MM-DD Z');
  }
}
