import Router from '@koa/router';
import nunjucks from 'nunjucks';
import { userInfo } from 'node:os';
import { createSecureContext, rootCertificates } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { Agent } from 'undici';
import { IANAZone } from 'luxon';
import { sheets, totals } from '#lib/sheets';

const views = nunjucks.configure(fileURLToPath(new URL('./views', import.meta.url)), { autoescape: true });
export const router = new Router();

router.get('/', (context) => {
  const zone = context.query.zone ?? 'Europe/Lisbon';
  context.assert(IANAZone.isValidZone(zone), 400, `no zone named ${zone}`);
  context.type = 'html';
  context.body = views.render('totals.njk', { zone, rows: totals(zone) });
});

router.get('/people/:person', (context) => {
  context.assert(Object.hasOwn(sheets, context.params.person), 404, `nobody named ${context.params.person}`);
  context.body = sheets[context.params.person];
});

// A workbook is asked for at the end of the month: its library is loaded then.
router.get('/hours.xlsx', async (context) => {
  const { workbook } = await import('#lib/workbook');
  context.type = 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet';
  context.body = Buffer.from(await workbook(totals('UTC')));
});

router.get('/status', async (context) => {
  const agent = new Agent({ connect: { ca: rootCertificates, timeout: 1000 } });
  await agent.close();
  const secure = createSecureContext({ ca: [...rootCertificates] });
  context.body = { user: userInfo().username, tls: Boolean(secure.context), lifecycle: process.env.npm_lifecycle_event ?? 'none' };
});
