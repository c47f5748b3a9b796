import { ValidationPipe } from '@nestjs/common';
import { ConfigService } from '@nestjs/config';
import { NestFactory } from '@nestjs/core';
import { NestExpressApplication } from '@nestjs/platform-express';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';
import { join } from 'node:path';
import { AppModule } from './app.module';

async function bootstrap(): Promise<void> {
  const app = await NestFactory.create<NestExpressApplication>(AppModule);
  app.useGlobalPipes(new ValidationPipe({ transform: true, whitelist: true }));
  app.setBaseViewsDir(join(__dirname, '..', 'views'));
  app.setViewEngine('hbs');
  app.enableShutdownHooks();
  const description = new DocumentBuilder().setTitle('Orders').setVersion('0.9').addBearerAuth().build();
  SwaggerModule.setup('docs', app, SwaggerModule.createDocument(app, description));
  await app.listen(app.get(ConfigService).get<number>('PORT', 3000));
}

void bootstrap();
