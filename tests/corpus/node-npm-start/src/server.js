import 'dotenv/config';
import Koa from 'koa';
import serve from 'koa-static';
import { fileURLToPath } from 'node:url';
import { log } from '#lib/log';
import { router } from './routes.js';

const app = new Koa();

app.use(async (context, next) => {
  try {
    await next();
  } catch (error) {
    context.status = error.status ?? 500;
    context.body = { error: error.expose ? error.message : 'internal error' };
    log.error(error.stack);
  }
  if (context.status === 404 && !context.body) {
    context.status = 404;
    context.body = { error: `nothing at ${context.path}` };
  }
});
app.use(serve(fileURLToPath(new URL('../public', import.meta.url))));
app.use(router.routes());
app.use(router.allowedMethods());

const port = Number(process.env.PORT ?? 5000);
const server = app.listen(port, '0.0.0.0', () => log.info(`listening on ${port}`));
process.on('SIGTERM', () => {
  server.closeAllConnections();
  server.close(() => process.exit(0));
});
