// What a service was asked to do, and when: counted by slots of 100 ms, so that tests can see the load on it.
// Pure: the clock is handed in.
#pragma once

#include <stdint.h>

enum { LOAD_SLOT_MS = 100, LOAD_SLOTS = 36000 /* the last hour */ };

struct load_slot {
    uint32_t requests, misbehaved;
    uint32_t most_in_flight;
};

struct load {
    uint64_t requests;
    uint32_t in_flight, most_in_flight;
    uint64_t newest; // the number of the slot that is written to, counted from the clock's zero
    struct load_slot slots[LOAD_SLOTS];
};

void load_begin(struct load *load, uint64_t now_us); // a request was received
void load_misbehaved(struct load *load, uint64_t now_us);
void load_end(struct load *load, uint64_t now_us); // it was answered, or is gone
// Number `newest - back`; empty when it is too old or nothing happened. now_us decides which is the newest.
struct load_slot load_slot(struct load *load, uint64_t now_us, uint64_t back);
// Forgets the most in flight until now: what is in flight stays.
void load_reset(struct load *load, uint64_t now_us);
