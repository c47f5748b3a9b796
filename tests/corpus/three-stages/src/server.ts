import { serve } from '@hono/node-server';
import { serveStatic } from '@hono/node-server/serve-static';
import { Hono } from 'hono';
import { HTTPException } from 'hono/http-exception';
import { etag } from 'hono/etag';
import { secureHeaders } from 'hono/secure-headers';
import { prices } from './prices.js';
import { ready } from './ready.js';

const app = new Hono();
app.use(secureHeaders());
app.use('/assets/*', etag(), serveStatic({ root: './public', rewriteRequestPath: (path) => path.replace('/assets', '') }));
app.route('/', prices);
app.get('/ready', async (context) => context.json(await ready()));
app.notFound((context) => context.json({ problem: `no page ${context.req.path}` }, 404));
app.onError((error, context) => {
  if (error instanceof HTTPException) {
    return context.json({ problem: error.message }, error.status);
  }
  console.error(error);
  return context.json({ problem: 'internal' }, 500);
});

const server = serve({ fetch: app.fetch, port: Number(process.env.PORT ?? 3000) }, ({ port }) => console.log(`listening on ${port}`));
process.on('SIGTERM', () => server.close(() => process.exit(0)));
