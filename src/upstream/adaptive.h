// Adaptive concurrency: how many requests an upstream is given at a time, from what they take.
//
// A service with room for c requests answers in the time b while there are no more; beyond, they wait in its
// queues and the time grows in proportion: the throughput does not. So the limit follows the gradient
// (Netflix's concurrency-limits, Envoy's adaptive concurrency)
//
//     limit := limit × clamp(tolerance × base / latency, 1/2, 1) + √limit
//
// which rests near tolerance × c. latency is the mean of a window of requests, base that without a queue.
// Base is what others measure by cutting concurrency now and then, at the cost of requests refused. Here it
// comes from what happens anyhow:
//
//   quicker than base   base follows at once: there was less of a queue
//   a little slower     base follows slowly, while the limit holds nobody up: services change
//   slow for long       the queue is taken to be ours, and the limit falls. When the throughput falls in step
//   with
//                       the concurrency, there was none: requests take longer by themselves, and that is base
//                       now. Later on, to find out, the limit is RAISED for one long window: when the
//                       throughput rises with it, the same; when it does not, the limit goes back, and the
//                       next such test is later
//
// A service that is never seen without a queue is given more than it has room for, two to six times.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    ADAPTIVE_LEAST = 3,          // the limit never falls below it
    ADAPTIVE_SAMPLES = 100,      // of a window: the mean of exponential times is then known to 10 %
    ADAPTIVE_TEST_SAMPLES = 400, // of the window of a test: to 5 %
    ADAPTIVE_WINDOW_US = 50000,  // at least
    ADAPTIVE_WAIT_US = 1000000,  // then a window ends with ADAPTIVE_FEW, too
    ADAPTIVE_FEW = 10,
    ADAPTIVE_TEST_US = 1000000, // from the beginning of a shortage to the first test; doubles up to
    ADAPTIVE_TEST_MAX_US = 30000000,
    ADAPTIVE_DRIFT_US = 30000000, // how long base takes to follow what may not be our queue
    ADAPTIVE_TELL_US = 10000,     // between two times a worker tells what it has measured
};

// What was measured: of one worker since it last told, or of a window. Zero it.
struct adaptive_batch {
    uint32_t samples;
    uint32_t peak;   // most requests at a time, over all workers
    bool bound;      // one was held up by the limit
    uint64_t sum_us; // of the samples
};

enum adaptive_test { ADAPTIVE_NO_TEST, ADAPTIVE_SETTLING, ADAPTIVE_TESTING };

struct adaptive { // zero it
    double limit; // 0: not begun
    double base_us;
    struct adaptive_batch window;
    uint64_t began_us; // of the window
    // While answers are slow:
    struct {
        double concurrency, throughput; // where concurrency was highest
        double last, smoothed;          // throughput; 0: there is no shortage
        bool judged;                    // whether throughput falls with concurrency
    } shortage;
    enum adaptive_test test;
    double untested;  // the limit before the test
    uint64_t test_us; // when the next one is due; 0: there is no shortage
    uint64_t patience_us;
};

// Adds what was measured; when that ends a window, the limit may change. most: limits.requests. now_us may
// lie before an earlier one.
void adaptive_note(struct adaptive *adaptive, const struct adaptive_batch *batch, uint32_t most,
                   uint64_t now_us);
// The limit in force: from 1 to most.
uint32_t adaptive_limit(const struct adaptive *adaptive, uint32_t most);
