// wait.hpp - how a process waits for another: spin, yield, block (futex), or all three in turn.
//
// Sleeping needs the other side's help, so it is a protocol, not a loop:
//   waiter:    odd = sleep |= 1; fence seq_cst (S1); look again; futex_wait(sleep == odd, at most the time-out)
//   publisher: publish; fence seq_cst (S2); if (sleep is odd and CAS sleep -> sleep + 1) futex_wake
// S1 and S2 pair: one of the two sees the other's store, so no wake-up is lost. The fences are needed on x86
// too (store-load order). The word counts: of several waiters one may set the bit again after a publisher has cleared
// it, and another, who looked before, must not sleep on that one's bit (found by the model, tests/model). A killed peer
// cannot wake anybody: every sleep has a time-out of at most SLEEP_NS.
// A mapping that may not be written cannot sleep; it yields and then naps for at most NAP_NS.
//
// `automatic` spins a little, yields as long as it pays, and sleeps. A wake-up from another core costs some 40 us and a
// yield 1, so it pays where the next record is expected soon: Patience tells, from how long the last waits took. Where a
// yield hands the core to a process that keeps it (not one of ours: those take microseconds), yielding would cost a slice
// of the scheduler each time, while who sleeps is let in at once when woken: then it sleeps early for a while.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "atomics.hpp"
#include "clock.hpp"

namespace lob {

// The last two are what `auto` becomes by the place it has (shared/lob/stage.py): alone on its core it spins where it would
// yield; a real-time process that yields for long keeps others from the core and is throttled, so it yields briefly.
enum class WaitMode : std::uint32_t { spin = 0, yield = 1, block = 2, automatic = 3, automatic_alone = 4, automatic_brief = 5 };

inline constexpr std::int64_t SPIN_NS = 500;  // longer spins burn the time a successor on the same core needs
inline constexpr int YIELDS = 20;
inline constexpr std::int64_t SLEEP_NS = 50'000'000;
inline constexpr std::int64_t NAP_NS = 1'000'000;

// By the name that `--wait` gives it, and stage.py what becomes of `auto`.
inline WaitMode wait_mode(std::string_view name) {
    if (name == "spin") return WaitMode::spin;
    if (name == "yield") return WaitMode::yield;
    if (name == "block") return WaitMode::block;
    if (name == "auto") return WaitMode::automatic;
    if (name == "auto-alone") return WaitMode::automatic_alone;
    if (name == "auto-brief") return WaitMode::automatic_brief;
    throw std::invalid_argument("no wait mode '" + std::string(name) + "': spin, yield, block or auto");
}

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
    std::uint32_t seen = sleep.load(std::memory_order_relaxed);
    if ((seen & 1) != 0 && sleep.compare_exchange_strong(seen, seen + 1, std::memory_order_relaxed)) futex_wake_all(&sleep);
}

// What one waiter has seen of its own waits; private to it.
class Patience {
public:
    static constexpr std::int64_t SOON_NS = 2'000'000;      // waits that take less than this are yielded through
    static constexpr std::int64_t MAX_NS = 8'000'000;       // ... for at most so long
    static constexpr std::int64_t ALONE_NS = 500'000'000;   // on a core of its own: then sleep all the same
    static constexpr std::int64_t FOREIGN_NS = 1'000'000;   // a yield that takes so long gave the core to a stranger
    static constexpr std::uint32_t EARLY_WAITS = 64;        // so many waits sleep at once then, and twice as many
    static constexpr std::uint32_t EARLY_WAITS_MAX = 2048;  // each time that it happens again soon

    // How long to yield (or spin) before sleeping; 0: only YIELDS times, -1: not at all.
    std::int64_t worth_ns(WaitMode mode) {
        if (mode == WaitMode::automatic_alone) return std::max<std::int64_t>(ALONE_NS - silent_ns_, 0);
        if (mode == WaitMode::automatic_brief) return 0;
        if (early_ > 0) {
            --early_;
            return -1;
        }
        if (next_early_ > EARLY_WAITS) --next_early_;
        return usual_ns_ < SOON_NS ? std::min(4 * usual_ns_, MAX_NS) : 0;
    }
    void waited(std::int64_t ns, bool in_vain) {
        silent_ns_ = in_vain ? silent_ns_ + ns : 0;
        usual_ns_ += (std::min(ns, 4 * SOON_NS) - usual_ns_) / 8;
    }
    void met_stranger() {
        early_ = next_early_;
        next_early_ = std::min(2 * next_early_, EARLY_WAITS_MAX);
    }

private:
    std::int64_t usual_ns_ = 4 * SOON_NS;  // of a wait, a moving average; nothing is expected at first
    std::int64_t silent_ns_ = 0;           // since the last wait that was not in vain
    std::uint32_t early_ = 0;
    std::uint32_t next_early_ = EARLY_WAITS;
};

// Waits until ready() or timeout_ns have passed; true if ready. `sleep` null: the mapping is read-only.
template <class A, class Ready>
bool wait_until(Ready&& ready, typename A::template atomic<std::uint32_t>* sleep, WaitMode mode, std::int64_t timeout_ns,
                Patience* patience = nullptr) {
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
    const auto ended = [&](bool came) {
        if (patience != nullptr) patience->waited(mono_ns() - start_ns, !came);
        return came;
    };
    if (mode != WaitMode::block) {
        std::int64_t now_ns = start_ns;
        while (now_ns - start_ns < SPIN_NS) {
            if (ready()) return ended(true);
            cpu_relax();
            now_ns = mono_ns();
        }
        const std::int64_t worth_ns = patience != nullptr ? patience->worth_ns(mode) : 0;
        const std::int64_t until_ns = std::min(deadline_ns, start_ns + worth_ns);
        for (int i = worth_ns < 0 ? YIELDS : 0; i < YIELDS || now_ns < until_ns; ++i) {
            if (mode == WaitMode::automatic_alone) cpu_relax();
            else sched_yield();
            const bool came = ready();
            const std::int64_t before_ns = now_ns;
            now_ns = mono_ns();
            if (patience != nullptr && mode == WaitMode::automatic && now_ns - before_ns >= Patience::FOREIGN_NS) {
                patience->met_stranger();
                if (!came) break;
            }
            if (came) return ended(true);
        }
    }
    std::int64_t nap_ns = 50'000;
    for (;;) {
        const std::int64_t left_ns = deadline_ns - mono_ns();
        if (left_ns <= 0) return ended(ready());
        if (sleep == nullptr) {
            timespec nap{0, static_cast<long>(std::min(nap_ns, left_ns))};
            nanosleep(&nap, nullptr);
            nap_ns = std::min(2 * nap_ns, NAP_NS);
            if (ready()) return ended(true);
            continue;
        }
        const std::uint32_t odd = sleep->fetch_or(1, std::memory_order_relaxed) | 1;
        A::fence(std::memory_order_seq_cst);  // S1
        if (ready()) return ended(true);  // sleep stays odd: another waiter may be asleep on it; costs one wake-up of nobody
        futex_wait(sleep, odd, std::min(SLEEP_NS, left_ns));
        if (ready()) return ended(true);
    }
}

}  // namespace lob
