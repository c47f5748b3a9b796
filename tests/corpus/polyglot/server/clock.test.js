"use strict";

const { localTimes } = require("./clock");

test("times are told in the station's zone", () => {
  const [extreme] = localTimes([{ kind: "high", time: "2024-06-21T10:00:00Z" }], "Europe/Oslo");
  expect(extreme).toEqual({ kind: "high", time: "fredag 12:00 +02:00" });
});
