// fail_point.hpp - numbered places where a test lets a process die; nothing at all in a build without LOB_FAIL_POINTS.
//
// RING_KILL_AT=n      SIGKILL at the first pass of point n;  n:k  at the k-th;  n:k:stop  SIGSTOP there. One before and one after each store that
// another process relies on: a process that is killed there leaves exactly what a reader of the proof would expect.
// tests/native/fail_points.cpp walks all of them.
//
//   1-9    a claim or write: before anything, pad, head, words          (spsc.hpp, broadcast.hpp)
//   10-19  intent, checkpoint and its fields                            (broadcast.hpp, ring.hpp)
//   20-29  commit: tail, latest, the wake-up                            (spsc.hpp, broadcast.hpp)
//   30-39  a reader's slot: taken, seq, position, the wake-up           (spsc.hpp, broadcast.hpp)
//   40-59  queue states                                                 (fixed_queue.hpp)
//   60-69  take-over                                                    (ring.hpp)
//   70-79  a worker's claim, journal and writes                         (lob-publish's work.hpp; tests/native/work_deaths.cpp)
#pragma once

#if defined(LOB_FAIL_POINTS)
#include <csignal>
#include <cstdlib>

namespace lob {

inline void fail_point(long point) {
    static long at = -1, passes = 1;
    static int signal = SIGKILL;
    if (at == -1) {
        const char* told = std::getenv("RING_KILL_AT");
        char* rest = nullptr;
        at = told == nullptr ? 0 : std::strtol(told, &rest, 10);
        if (rest != nullptr && *rest == ':') passes = std::strtol(rest + 1, &rest, 10);
        if (rest != nullptr && *rest == ':') signal = SIGSTOP;
    }
    if (point == at && --passes == 0) std::raise(signal);
}

}  // namespace lob
#define LOB_FAIL_POINT(n) ::lob::fail_point(n)
#else
#define LOB_FAIL_POINT(n) static_cast<void>(0)
#endif
