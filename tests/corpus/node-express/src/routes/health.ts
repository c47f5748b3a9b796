import { Router } from 'express';
import os from 'node:os';
import tls from 'node:tls';

export const health = Router();

health.get('/', (request, response) => {
  response.json({ status: 'up' });
});

health.get('/details', (request, response) => {
  const context = tls.createSecureContext({ minVersion: 'TLSv1.2', ca: [...tls.rootCertificates] });
  response.json({
    tls: Boolean(context.context) && tls.rootCertificates.length > 100 ? 'trusts the usual authorities' : 'trusts nobody',
    user: os.userInfo().username,
    home: os.userInfo().homedir,
  });
});
