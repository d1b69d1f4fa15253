// wait.hpp - how a process waits for another: spin, yield, block (futex), or all three in turn.
//
// Sleeping needs the other side's help, so it is a protocol, not a loop:
//   waiter:    sleep=1 (S1); fence seq_cst; look again; futex_wait(sleep == 1, at most the time-out)
//   publisher: publish; fence seq_cst (S2); if (sleep) { sleep=0; futex_wake }
// S1 and S2 pair: one of the two sees the other's store, so no wake-up is lost. The fences are needed on x86
// too (store-load order). A killed peer cannot wake anybody: every sleep has a time-out of at most SLEEP_NS.
// A mapping that may not be written cannot sleep; it yields and then naps for at most NAP_NS.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdint>

#include "atomics.hpp"
#include "clock.hpp"

namespace lob {

enum class WaitMode : std::uint32_t { spin = 0, yield = 1, block = 2, automatic = 3 };

inline constexpr std::int64_t SPIN_NS = 500;  // longer spins burn the time a successor on the same core needs
inline constexpr int YIELDS = 20;
inline constexpr std::int64_t SLEEP_NS = 20'000'000;
inline constexpr std::int64_t NAP_NS = 1'000'000;

inline void cpu_relax() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
}

template <class Word>
inline void futex_wait(Word* word, std::uint32_t expected, std::int64_t timeout_ns) noexcept {
    timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, nullptr, 0);
}

template <class Word>
inline void futex_wake_all(Word* word) noexcept {
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// The publisher's half; call it after the store that the waiter looks for.
template <class A>
inline void wake_if_asleep(typename A::template atomic<std::uint32_t>& sleep) noexcept {
    A::fence(std::memory_order_seq_cst);  // S2
    if (sleep.load(std::memory_order_relaxed) != 0) {
        sleep.store(0, std::memory_order_relaxed);
        futex_wake_all(&sleep);
    }
}

// Waits until ready() or timeout_ns have passed; true if ready. `sleep` null: the mapping is read-only.
template <class A, class Ready>
bool wait_until(Ready&& ready, typename A::template atomic<std::uint32_t>* sleep, WaitMode mode, std::int64_t timeout_ns) {
    if (ready()) return true;
    const std::int64_t start_ns = mono_ns();
    const std::int64_t deadline_ns = start_ns + timeout_ns;
    if (mode == WaitMode::spin) {
        for (;;) {
            for (int i = 0; i < 64; ++i) {
                if (ready()) return true;
                cpu_relax();
            }
            if (mono_ns() >= deadline_ns) return false;
        }
    }
    if (mode == WaitMode::yield) {
        for (;;) {
            sched_yield();
            if (ready()) return true;
            if (mono_ns() >= deadline_ns) return false;
        }
    }
    if (mode == WaitMode::automatic) {
        while (mono_ns() - start_ns < SPIN_NS) {
            if (ready()) return true;
            cpu_relax();
        }
        for (int i = 0; i < YIELDS; ++i) {
            sched_yield();
            if (ready()) return true;
        }
    }
    std::int64_t nap_ns = 50'000;
    for (;;) {
        const std::int64_t left_ns = deadline_ns - mono_ns();
        if (left_ns <= 0) return ready();
        if (sleep == nullptr) {
            timespec nap{0, static_cast<long>(std::min(nap_ns, left_ns))};
            nanosleep(&nap, nullptr);
            nap_ns = std::min(2 * nap_ns, NAP_NS);
            if (ready()) return true;
            continue;
        }
        sleep->store(1, std::memory_order_relaxed);
        A::fence(std::memory_order_seq_cst);  // S1
        if (ready()) return true;  // sleep stays 1: another waiter may be asleep on it; costs one wake-up of nobody
        futex_wait(sleep, 1, std::min(SLEEP_NS, left_ns));
        if (ready()) return true;
    }
}

}  // namespace lob
