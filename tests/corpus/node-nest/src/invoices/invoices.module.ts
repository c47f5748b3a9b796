import { Module } from '@nestjs/common';
import { JwtModule } from '@nestjs/jwt';
import { OrdersModule } from '../orders/orders.module';
import { InvoicesController } from './invoices.controller';

@Module({
  imports: [OrdersModule, JwtModule.register({ secret: process.env.INVOICE_SECRET ?? 'only-for-links', signOptions: { noTimestamp: true } })],
  controllers: [InvoicesController],
})
export class InvoicesModule {}
