import { Controller, Get, Param, ParseIntPipe, StreamableFile, UnauthorizedException, Query } from '@nestjs/common';
import { LazyModuleLoader } from '@nestjs/core';
import { JwtService } from '@nestjs/jwt';
import { OrdersService } from '../orders/orders.service';

@Controller('invoices')
export class InvoicesController {
  constructor(
    private readonly orders: OrdersService,
    private readonly jwt: JwtService,
    private readonly lazy: LazyModuleLoader,
  ) {}

  @Get(':id/link')
  link(@Param('id', ParseIntPipe) id: number): { token: string } {
    return { token: this.jwt.sign({ order: this.orders.byId(id).id }) };
  }

  /** PDF is heavy and rare: its module is loaded with the first invoice. */
  @Get('pdf')
  async pdf(@Query('token') token: string): Promise<StreamableFile> {
    let order: number;
    try {
      ({ order } = this.jwt.verify<{ order: number }>(token));
    } catch {
      throw new UnauthorizedException('this link is not ours');
    }
    const { PdfModule } = await import('./pdf.module');
    const { PdfService } = await import('./pdf.service');
    const module = await this.lazy.load(() => PdfModule);
    return new StreamableFile(await module.get(PdfService).invoice(this.orders.byId(order)), { type: 'application/pdf' });
  }
}
