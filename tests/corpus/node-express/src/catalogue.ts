import { z } from 'zod';
import rows from './catalogue.json';

const Book = z.object({
  isbn: z.string().length(13),
  title: z.string(),
  author: z.string(),
  cents: z.number().int().positive(),
  published: z.string().date(),
});

export type Book = z.infer<typeof Book>;

export const catalogue: Book[] = z.array(Book).parse(rows);

export function find(isbn: string): Book | undefined {
  return catalogue.find((book) => book.isbn === isbn);
}
