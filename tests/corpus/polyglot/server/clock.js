"use strict";

const { DateTime } = require("luxon");

function localTimes(extremes, zone) {
  return extremes.map(({ time, ...rest }) => ({
    ...rest,
    time: DateTime.fromISO(time, { zone: "utc" }).setZone(zone).setLocale("nb").toFormat("cccc HH:mm ZZ"),
  }));
}

module.exports = { localTimes };
