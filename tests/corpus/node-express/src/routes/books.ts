import { Router } from 'express';
import { DateTime } from 'luxon';
import { z } from 'zod';
import { catalogue, find } from '../catalogue';

export const books = Router();

books.get('/', (request, response) => {
  response.render('index', { title: 'Bookshop', books: catalogue });
});

books.get('/books/:isbn', (request, response, next) => {
  const book = find(request.params.isbn);
  return book ? response.json(book) : next();
});

const SlipQuery = z.object({
  at: z.string().datetime(),
  zone: z.string().refine((zone) => DateTime.local().setZone(zone).isValid, 'unknown zone'),
});

books.get('/books/:isbn/slip', (request, response, next) => {
  const book = find(request.params.isbn);
  if (!book) {
    return next();
  }
  const query = SlipQuery.safeParse(request.query);
  if (!query.success) {
    return response.status(400).json(query.error.flatten());
  }
  const printed = DateTime.fromISO(query.data.at, { zone: query.data.zone }).setLocale('de');
  return response.json({ isbn: book.isbn, printed: printed.toLocaleString(DateTime.DATETIME_FULL), offset: printed.toFormat('ZZ') });
});
