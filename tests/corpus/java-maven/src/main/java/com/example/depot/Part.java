package com.example.depot;

import java.time.Instant;

/** A part in stock and when it was last counted. */
public record Part(long id, String name, int stock, Instant counted) {}
