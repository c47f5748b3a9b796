import { Router } from 'express';
import { find } from '../catalogue';

export const labels = Router();

// Few visitors print labels, so the encoder is loaded when the first one does.
labels.get('/:isbn.svg', async (request, response, next) => {
  const book = find(request.params.isbn);
  if (!book) {
    return next();
  }
  const { default: qrcode } = await import('qrcode');
  const svg = await qrcode.toString(`urn:isbn:${book.isbn}`, { type: 'svg', errorCorrectionLevel: 'M' });
  return response.type('image/svg+xml').send(svg);
});
