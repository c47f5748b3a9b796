import compression from 'compression';
import express, { NextFunction, Request, Response } from 'express';
import helmet from 'helmet';
import path from 'node:path';
import pinoHttp from 'pino-http';
import { logger } from './logger';
import { books } from './routes/books';
import { health } from './routes/health';
import { labels } from './routes/labels';

export function createApp(): express.Express {
  const app = express();
  app.set('view engine', 'ejs');
  app.set('views', path.join(__dirname, '..', 'views'));
  app.use(helmet());
  app.use(compression());
  app.use(pinoHttp({ logger }));
  app.use('/static', express.static(path.join(__dirname, '..', 'public')));
  app.use('/', books);
  app.use('/health', health);
  app.use('/labels', labels);
  app.use((request: Request, response: Response) => {
    response.status(404).render('error', { title: 'Not found', message: `Nothing at ${request.path}` });
  });
  app.use((error: Error, request: Request, response: Response, _next: NextFunction) => {
    logger.error(error);
    response.status(500).render('error', { title: 'Sorry', message: error.message });
  });
  return app;
}
