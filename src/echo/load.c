#include "echo/load.h"

#include <stddef.h>

// The slot of now; those that nothing happened in since are emptied.
static struct load_slot *slot_now(struct load *load, uint64_t now_us)
{
    uint64_t number = now_us / (LOAD_SLOT_MS * 1000);
    if (number > load->newest) {
        uint64_t first = load->newest + 1;
        if (number - load->newest > LOAD_SLOTS)
            first = number - LOAD_SLOTS + 1;
        for (uint64_t i = first; i <= number; i++)
            load->slots[i % LOAD_SLOTS] = (struct load_slot){.most_in_flight = load->in_flight};
        load->newest = number;
    }
    return &load->slots[load->newest % LOAD_SLOTS];
}

void load_begin(struct load *load, uint64_t now_us)
{
    struct load_slot *slot = slot_now(load, now_us);
    load->requests++;
    slot->requests++;
    load->in_flight++;
    if (load->in_flight > slot->most_in_flight)
        slot->most_in_flight = load->in_flight;
    if (load->in_flight > load->most_in_flight)
        load->most_in_flight = load->in_flight;
}

void load_misbehaved(struct load *load, uint64_t now_us)
{
    slot_now(load, now_us)->misbehaved++;
}

void load_end(struct load *load, uint64_t now_us)
{
    slot_now(load, now_us); // those until now had it in flight
    load->in_flight--;
}

struct load_slot load_slot(struct load *load, uint64_t now_us, uint64_t back)
{
    slot_now(load, now_us);
    if (back >= LOAD_SLOTS || back > load->newest)
        return (struct load_slot){0};
    return load->slots[(load->newest - back) % LOAD_SLOTS];
}

void load_reset(struct load *load, uint64_t now_us)
{
    load->most_in_flight = load->in_flight;
    slot_now(load, now_us)->most_in_flight = load->in_flight;
}
