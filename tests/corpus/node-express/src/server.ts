import { createApp } from './app';
import { logger } from './logger';

const port = Number(process.env.PORT ?? 3000);
const server = createApp().listen(port, () => logger.info({ port }, 'listening'));

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    logger.info({ signal }, 'closing');
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}
