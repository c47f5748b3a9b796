import request from 'supertest';
import { createApp } from '../src/app';

describe('books', () => {
  it('lists the catalogue', async () => {
    const response = await request(createApp()).get('/');
    expect(response.status).toBe(200);
    expect(response.text).toContain('Design Patterns');
  });

  it('knows no other book', async () => {
    expect((await request(createApp()).get('/books/0000000000000')).status).toBe(404);
  });
});
