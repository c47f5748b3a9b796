"use strict";

const os = require("node:os");
const path = require("node:path");
const tls = require("node:tls");
const zlib = require("node:zlib");
const ejs = require("ejs");
const express = require("express");
const pino = require("pino");
const { z } = require("zod");

const { harmonics, Missing } = require("./harmonics");

const log = pino({ base: undefined });
const app = express();
const port = Number(process.env.PORT ?? 18270);

app.engine("ejs", ejs.__express);
app.set("view engine", "ejs");
app.set("views", path.join(__dirname, "views"));
app.use("/public", express.static(path.join(__dirname, "public")));

const Query = z.object({
  date: z.string().date().default("2024-06-21"),
  zone: z.string().optional(),
});

app.get("/", async (request, response, next) => {
  try {
    response.render("stations", { stations: await harmonics(["list"]) });
  } catch (error) {
    next(error);
  }
});

app.get("/stations/:station", async (request, response, next) => {
  try {
    const { date, zone } = Query.parse(request.query);
    const tide = await harmonics(["tide", request.params.station, date]);
    // Luxon is loaded by whoever asks for local times first.
    const { localTimes } = require("./clock");
    response.json({ ...tide, extremes: localTimes(tide.extremes, zone ?? tide.zone) });
  } catch (error) {
    next(error);
  }
});

app.get("/archive/:station", async (request, response, next) => {
  try {
    const body = await harmonics(["raw", request.params.station, "2024-06-21"]);
    response.json({ samples: body.heights.length, packed: zlib.brotliCompressSync(JSON.stringify(body)).length > 100 });
  } catch (error) {
    next(error);
  }
});

app.get("/machinery", async (request, response, next) => {
  try {
    const context = tls.createSecureContext({ ca: tls.rootCertificates });
    response.json({
      node: { user: os.userInfo().username, home: os.userInfo().homedir, trusts: Boolean(context.context) },
      python: await harmonics(["machinery"]),
    });
  } catch (error) {
    next(error);
  }
});

app.use((request, response) => response.status(404).json({ error: `nothing at ${request.path}` }));

app.use((error, request, response, next) => {
  if (error instanceof Missing) return response.status(404).json({ error: error.message });
  if (error instanceof z.ZodError) return response.status(400).json({ error: error.issues[0].message });
  log.error(error);
  return response.status(500).json({ error: "the computation failed" });
});

const server = app.listen(port, "0.0.0.0", () => log.info({ port }, "tides: listening"));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
