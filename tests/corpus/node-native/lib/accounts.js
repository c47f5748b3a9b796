'use strict'

const bcrypt = require('bcrypt')
const plugin = require('fastify-plugin')

// "correct horse", hashed by another implementation
const known = { ada: '$2b$08$abcdefghijklmnopqrstuubAvJmxpQuyV3jn7x.SUSPxe.DearCPe' }

module.exports = plugin(async function accounts (fastify) {
  const schema = {
    params: { type: 'object', properties: { name: { type: 'string', pattern: '^[a-z]+$' } } },
    querystring: { type: 'object', required: ['password'], properties: { password: { type: 'string', maxLength: 72 } } }
  }

  fastify.get('/accounts/:name/check', { schema }, async (request, reply) => {
    const hash = known[request.params.name]
    if (!hash) return reply.callNotFound()
    if (await bcrypt.compare(request.query.password, hash)) return { welcome: request.params.name }
    return reply.code(403).send({ error: 'wrong password' })
  })
})
