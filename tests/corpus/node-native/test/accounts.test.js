'use strict'

const { test } = require('tap')
const fastify = require('fastify')

test('strangers are not found', async (t) => {
  const app = fastify()
  app.register(require('../lib/accounts'))
  const response = await app.inject('/accounts/eve/check?password=x')
  t.equal(response.statusCode, 404)
})
