import { formatInTimeZone } from 'date-fns-tz';
import { de, enGB } from 'date-fns/locale';
import Dinero from 'dinero.js';
import { Hono } from 'hono';
import { HTTPException } from 'hono/http-exception';
import Mustache from 'mustache';
import { z } from 'zod';
import { inLanguage } from './languages.js';

const items = [
  { sku: 'tea', cents: 1250 },
  { sku: 'coffee', cents: 990 },
];

const Query = z.object({
  language: z.enum(['de', 'en']).default('en'),
  zone: z.string().default('UTC'),
  at: z.coerce.date().default(new Date(0)),
});

const page = `<!doctype html>
<title>{{title}}</title>
<h1>{{title}}</h1>
<p>{{valid}}</p>
<dl>{{#items}}<dt>{{name}}</dt><dd>{{price}}</dd>{{/items}}</dl>
<img src="/assets/cup.svg" alt="">
`;

export const prices = new Hono();

prices.get('/', async (context) => {
  const query = Query.safeParse(context.req.query());
  if (!query.success) {
    throw new HTTPException(400, { message: query.error.issues.map((issue) => issue.path.join('.')).join(', ') });
  }
  const { language, zone, at } = query.data;
  const t = await inLanguage(language);
  return context.html(
    Mustache.render(page, {
      title: t('title'),
      valid: t('valid', { date: formatInTimeZone(at, zone, 'PPPP p', { locale: language === 'de' ? de : enGB }) }),
      items: items.map(({ sku, cents }) => ({
        name: t(`items.${sku}`),
        price: Dinero({ amount: cents, currency: 'EUR' }).setLocale(language === 'de' ? 'de-DE' : 'en-GB').toFormat('$0,0.00'),
      })),
    }),
  );
});

prices.get('/prices.csv', async (context) => {
  const { default: Papa } = await import('papaparse');
  return context.body(Papa.unparse(items), 200, { 'content-type': 'text/csv' });
});

// A price that can be proved later: signed, so that nobody argues about it.
prices.get('/quote/:sku', async (context) => {
  const item = items.find(({ sku }) => sku === context.req.param('sku'));
  if (!item) {
    throw new HTTPException(404, { message: 'not on the list' });
  }
  const { SignJWT, jwtVerify } = await import('jose');
  const key = new TextEncoder().encode(process.env.QUOTE_KEY ?? 'not a secret, for the demonstration');
  const quote = await new SignJWT({ ...item }).setProtectedHeader({ alg: 'HS256' }).sign(key);
  const { payload } = await jwtVerify(quote, key);
  return context.json({ quote, cents: payload.cents });
});
