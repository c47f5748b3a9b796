package com.example.depot;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class StoreTest {
    @Test
    void findsWhatTheSchemaHolds() throws Exception {
        try (Store store = new Store()) {
            assertEquals(3, store.all().size());
            assertEquals("Coupling", store.find(3).orElseThrow().name());
            assertTrue(store.find(4).isEmpty());
        }
    }
}
