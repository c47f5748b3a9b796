import { Injectable } from '@nestjs/common';
import PDFDocument from 'pdfkit';
import { Order } from '../orders/order';

@Injectable()
export class PdfService {
  invoice(order: Order): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const document = new PDFDocument({ size: 'A5', compress: false, info: { Title: `Invoice ${order.id}`, CreationDate: new Date(order.placed) } });
      const chunks: Buffer[] = [];
      document.on('data', (chunk: Buffer) => chunks.push(chunk));
      document.on('end', () => resolve(Buffer.concat(chunks)));
      document.on('error', reject);
      document.font('Times-Roman').fontSize(18).text(`Invoice ${order.id}`);
      document.font('Helvetica').fontSize(11).text(`${order.customer}: ${(order.cents / 100).toFixed(2)} EUR`);
      document.end();
    });
  }
}
