'use strict'

const path = require('node:path')
const fastify = require('fastify')({ logger: { level: process.env.LOG_LEVEL || 'warn' } })

fastify.register(require('@fastify/view'), {
  engine: { handlebars: require('handlebars') },
  root: path.join(__dirname, 'templates')
})

// One plugin a file: whatever lies in lib/ is part of the service.
for (const name of ['accounts', 'avatars', 'status']) {
  fastify.register(require(path.join(__dirname, 'lib', name)))
}

fastify.setNotFoundHandler((request, reply) => {
  reply.code(404).send({ error: 'not found', path: request.url })
})

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => fastify.close().then(() => process.exit(0)))
}

fastify.listen({ port: Number(process.env.PORT || 8080), host: process.env.HOST || '0.0.0.0' })
