import { Controller, Get, Param, ParseIntPipe, Query, Render } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { DeliveryQuery, Order, PageQuery } from './order';
import { OrdersService } from './orders.service';

@ApiTags('orders')
@Controller()
export class OrdersController {
  constructor(private readonly orders: OrdersService) {}

  @Get()
  @Render('orders')
  index(): { orders: Order[] } {
    return { orders: this.orders.page(0, 50) };
  }

  @Get('orders')
  page(@Query() query: PageQuery): Order[] {
    return this.orders.page(query.offset, query.limit);
  }

  @Get('orders/:id')
  one(@Param('id', ParseIntPipe) id: number): Order {
    return this.orders.byId(id);
  }

  @Get('delivery')
  delivery(@Query() query: DeliveryQuery): { arrives: string } {
    return { arrives: this.orders.delivery(query.placed, query.zone) };
  }
}
