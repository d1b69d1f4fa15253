// poller.hpp - waits for many descriptors, and reads some of them itself.
//
// asyncio registers what it waits for, as with any selector. A descriptor that has a Source is read by it as soon as it is
// readable, without a return to Python; asyncio sees it again when the source has no more use for it (end, error).
#pragma once

#include <sched.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "clock.hpp"

namespace lob {

// Reads one descriptor.
struct Source {
    virtual ~Source() = default;
    // Read what there is. False: no more use for it, others shall see for themselves what it is.
    // `turn` is another one if Python code may have run since the last call.
    virtual bool readable(int fd, std::uint64_t turn) = 0;
    // Whether Python code ran since the last call: the event loop may have new work.
    virtual bool called() = 0;
};

class Poller {
public:
    static constexpr unsigned READ = 1, WRITE = 2;  // as in Python's selectors
    static constexpr std::int64_t WAIT_MAX_NS = 50'000'000;  // signals, watchdog, heartbeat

    // `busy`: never sleep.
    explicit Poller(bool busy) : busy_(busy), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
        if (epoll_ < 0) throw std::system_error(errno, std::generic_category(), "epoll");
    }
    ~Poller() { close(); }
    Poller(const Poller&) = delete;
    Poller& operator=(const Poller&) = delete;

    void close() {
        if (epoll_ >= 0) ::close(epoll_);
        epoll_ = -1;
        watches_.clear();
    }

    // Wait for these events of fd from now on, instead of what it was before. Without READ its source is gone.
    void watch(int fd, unsigned events) {
        const auto [found, is_new] = watches_.try_emplace(fd);
        Watch& watch = found->second;
        epoll_event wanted{};
        wanted.events = ((events & READ) != 0 ? EPOLLIN : 0u) | ((events & WRITE) != 0 ? EPOLLOUT : 0u);
        wanted.data.fd = fd;
        if (epoll_ctl(epoll_, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &wanted) != 0) {
            const int error = errno;
            if (is_new) watches_.erase(found);
            throw std::system_error(error, std::generic_category(), "epoll");
        }
        watch.events = events;
        if ((events & READ) == 0) retire(watch);
    }

    void forget(int fd) {
        const auto found = watches_.find(fd);
        if (found == watches_.end()) return;
        epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);  // an error: closed already, and so gone from there
        retire(found->second);
        watches_.erase(found);
    }

    // False if nobody waits to read fd.
    bool divert(int fd, std::shared_ptr<Source> source) {
        const auto found = watches_.find(fd);
        if (found == watches_.end() || (found->second.events & READ) == 0) return false;
        retire(found->second);
        found->second.source = std::move(source);
        return true;
    }

    // Waits until something is ready that has no source (those are returned), a source ran Python code, a signal came, or the
    // time is over.
    std::vector<std::pair<int, unsigned>> wait(std::int64_t timeout_ns) {
        std::vector<std::pair<int, unsigned>> ready;
        ++turn_;
        const std::int64_t deadline_ns = mono_ns() + std::clamp<std::int64_t>(timeout_ns, 0, WAIT_MAX_NS);
        std::array<epoll_event, 64> events;
        std::int64_t left_ns = deadline_ns - mono_ns();
        for (;;) {
            const int timeout_ms = busy_ || left_ns <= 0 ? 0 : static_cast<int>((left_ns + 999'999) / 1'000'000);
            const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout_ms);
            if (count < 0) {
                if (errno == EINTR) return ready;
                throw std::system_error(errno, std::generic_category(), "epoll");
            }
            bool called = false;
            for (int i = 0; i < count; ++i) {
                const int fd = events[static_cast<std::size_t>(i)].data.fd;
                const auto found = watches_.find(fd);
                if (found == watches_.end()) continue;  // forgotten by a source before it
                const std::uint32_t what = events[static_cast<std::size_t>(i)].events;
                // As Python's selector has it: an error or the other's end is something to read and to write.
                unsigned now = ((what & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0 ? READ : 0u) |
                               ((what & ~static_cast<std::uint32_t>(EPOLLIN)) != 0 ? WRITE : 0u);
                now &= found->second.events;
                if ((now & READ) != 0 && found->second.source != nullptr) {
                    const std::shared_ptr<Source> source = found->second.source;
                    if (source->readable(fd, turn_)) {
                        now &= ~READ;
                    } else if (const auto again = watches_.find(fd); again != watches_.end()) {
                        retire(again->second);
                    }
                    if (source->called()) {
                        called = true;
                        ++turn_;
                    }
                }
                if (now != 0) ready.emplace_back(fd, now);
            }
            if (!ready.empty() || called) return ready;
            left_ns = deadline_ns - mono_ns();
            if (left_ns <= 0) return ready;
            if (busy_ && count == 0) sched_yield();
        }
    }

    // Destroys the sources that are no longer used; not while one of them runs.
    void bury() { retired_.clear(); }

private:
    struct Watch {
        unsigned events = 0;
        std::shared_ptr<Source> source;
    };

    void retire(Watch& watch) {
        if (watch.source != nullptr) retired_.push_back(std::move(watch.source));
        watch.source = nullptr;
    }

    const bool busy_;
    int epoll_;
    std::uint64_t turn_ = 0;
    std::unordered_map<int, Watch> watches_;
    std::vector<std::shared_ptr<Source>> retired_;
};

}  // namespace lob
