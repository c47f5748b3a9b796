'use strict'

const dayjs = require('dayjs')
dayjs.extend(require('dayjs/plugin/utc'))
dayjs.extend(require('dayjs/plugin/timezone'))
const { customAlphabet } = require('nanoid')

const newId = customAlphabet('23456789abcdefghijkmnpqrstuvwxyz', 8)
const pastes = new Map([
  ['welcome', { text: '# Welcome\n\nPaste *anything* here.', at: '2024-10-27T00:30:00Z' }],
  [newId(), { text: 'a second one, named anew at each start', at: '2024-10-27T01:30:00Z' }]
])

exports.get = (id) => pastes.get(id)

exports.all = (zone = 'UTC') => {
  try {
    return [...pastes].map(([id, { at }]) => ({ id, at: dayjs.utc(at).tz(zone).format('D MMM YYYY HH:mm Z') }))
  } catch (cause) {
    throw Object.assign(new Error(`no zone ${zone}`, { cause }), { status: 400 })
  }
}
