// text_sink.hpp - lines on their way to a file descriptor: buffers of a pool, and a thread that writes them.
//
// The pump's thread puts lines into the open buffer, and gives it to the writer when it is full or nothing more comes just
// then; the writer gives it back when it is written. So nothing is allocated after the start, a slow disk or pipe holds up
// nobody else, and the pool's limit is the bound of what may wait: BACKLOG_BYTES in full buffers, and PROMPT more that may be
// handed over unfilled, so that a line is out at once while the writer keeps up.
//
// Full       under `wait` put() says false and the pump comes back (wait_room). Else the line is dropped, counted, and a
//            `lost` line stands in its place as soon as there is room. A line is in it whole or not at all.
// Threads    one that puts, one that writes, and anybody may read the counters. The writer outlives this object if it is
//            stuck in a write: then it ends with the process.
// Not here   which descriptor, what an error means, how long a stop waits for a slow reader. Python decides.
#pragma once

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <thread>
#include <vector>

#include "ndjson.hpp"
#include "pool.hpp"

namespace lob::publish {

class TextSink {
public:
    static constexpr std::uint64_t BACKLOG_BYTES = 16 << 20;

    struct Counts {
        std::uint64_t lines;    // written
        std::uint64_t bytes;    // written
        std::uint64_t dropped;  // lines
        int error;              // errno of the write that failed; 0: none
    };

    explicit TextSink(int fd) : state_(std::make_shared<State>(fd)), cache_(state_->pool) {
        taken_.reserve(BUFFERS);
        sigset_t all, before;  // signals are for the thread that runs Python
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        thread_ = std::thread([state = state_] { state->write_all(); });
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }
    ~TextSink() {
        finish();
        if (wait_written(0)) thread_.join();
        else thread_.detach();
    }
    TextSink(const TextSink&) = delete;
    TextSink& operator=(const TextSink&) = delete;

    // Whether put() refuses a line that finds no room, or drops it.
    void set_waits(bool waits) { waits_ = waits; }

    // Where the next line may be written before it is put(); may be too small for it, or empty.
    std::span<char> room() {
        if (hole_ != 0 || (open_ == nullptr && (open_ = cache_.take()) == nullptr)) return {};
        return {open_->bytes + open_->size, CAPACITY - open_->size};
    }

    // One whole line. False: no room, try again.
    bool put(std::string_view line) {
        if (state_->error.load(std::memory_order_relaxed) != 0) return drop();
        if (hole_ != 0) {
            if (!append(lost_line())) return waits_ ? false : drop();
            hole_ = 0;
        }
        return append(line) || (!waits_ && drop());
    }

    // What is in the open buffer goes to the writer, unless that one has plenty to do: then it is filled first.
    void flush() {
        if (open_ == nullptr || open_->size == 0) return;
        std::unique_lock lock(state_->mutex);
        if (state_->queued < PROMPT) hand_over(std::move(lock));
    }

    // Until a buffer has been written or the time-out.
    void wait_room(std::int64_t timeout_ns) {
        std::unique_lock lock(state_->mutex);
        const std::uint64_t seen = state_->written;
        state_->room.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                              [&] { return state_->written != seen || state_->error != 0 || state_->queued == 0; });
    }

    // Nothing more will be put.
    void finish() {
        if (hole_ != 0 && state_->error == 0 && append(lost_line())) hole_ = 0;
        std::unique_lock lock(state_->mutex);
        state_->done = true;
        if (open_ != nullptr) hand_over(std::move(lock));
        else state_->work.notify_one();
    }
    // Whether all is written, or has failed; waits for it.
    bool wait_written(std::int64_t timeout_ns) {
        std::unique_lock lock(state_->mutex);
        return state_->room.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [&] { return state_->ended; });
    }

    Counts counts() const {
        const State& s = *state_;
        return {s.lines.load(std::memory_order_relaxed), s.bytes.load(std::memory_order_relaxed),
                s.dropped.load(std::memory_order_relaxed), s.error.load(std::memory_order_relaxed)};
    }

private:
    static constexpr std::uint32_t CAPACITY = (64 << 10) - 2 * sizeof(std::uint32_t);
    static constexpr std::uint32_t PROMPT = 64;
    static constexpr std::uint32_t BUFFERS = BACKLOG_BYTES / CAPACITY + PROMPT;
    static constexpr std::size_t LINE_MAX_BYTES = BACKLOG_BYTES;

    struct Buffer {
        Buffer() {}  // the bytes stay as they are
        std::uint32_t size = 0;
        std::uint32_t lines = 0;  // that end in it
        char bytes[CAPACITY];
    };
    static_assert(sizeof(Buffer) == 64 << 10);
    using Buffers = Pool<Buffer, 4>;  // few at a time: what lies in the writer's cache is out of the pump's reach

    struct State {
        explicit State(int fd) : fd(fd), pool(BUFFERS), queue(BUFFERS) {}

        void write_all() {
            pthread_setname_np(pthread_self(), "text-sink");
            {
                Buffers::Cache cache(pool);
                for (;;) {
                    std::unique_lock lock(mutex);
                    work.wait(lock, [&] { return queued != 0 || done; });
                    if (queued == 0) break;
                    Buffer* buffer = queue[first];
                    lock.unlock();
                    if (error == 0 && write(*buffer)) lines.fetch_add(buffer->lines, std::memory_order_relaxed);
                    else dropped.fetch_add(buffer->lines, std::memory_order_relaxed);
                    cache.give(buffer);
                    lock.lock();
                    first = (first + 1) % BUFFERS;
                    --queued;
                    ++written;
                    room.notify_all();
                }
            }
            const std::lock_guard lock(mutex);
            ended = true;
            room.notify_all();
        }
        bool write(const Buffer& buffer) {
            for (std::uint32_t at = 0; at < buffer.size;) {
                const ssize_t count = ::write(fd, buffer.bytes + at, buffer.size - at);
                if (count < 0 && errno == EAGAIN) {  // whoever shares the open file may have made it non-blocking
                    pollfd room{fd, POLLOUT, 0};
                    ::poll(&room, 1, -1);
                    continue;
                }
                if (count < 0) {
                    error = errno;
                    return false;
                }
                at += static_cast<std::uint32_t>(count);
                bytes.fetch_add(static_cast<std::uint64_t>(count), std::memory_order_relaxed);
            }
            return true;
        }

        const int fd;
        Buffers pool;
        std::mutex mutex;
        std::condition_variable work, room;
        // under the mutex
        std::vector<Buffer*> queue;
        std::uint32_t first = 0, queued = 0;  // until they are written
        std::uint64_t written = 0;
        bool done = false, ended = false;
        // the writer's, read by all
        std::atomic<std::uint64_t> lines{0}, bytes{0}, dropped{0};
        std::atomic<int> error{0};
    };

    bool append(std::string_view line) {
        if (open_ != nullptr && line.data() == open_->bytes + open_->size) {  // formatted in its place
            open_->size += static_cast<std::uint32_t>(line.size());
            ++open_->lines;
            return true;
        }
        const std::size_t left = open_ == nullptr ? 0 : CAPACITY - open_->size;
        if (line.size() > left) {  // what it needs besides is all at hand, or nothing of it is written
            const std::size_t wanted = (line.size() - left + CAPACITY - 1) / CAPACITY;
            while (taken_.size() < wanted && line.size() <= LINE_MAX_BYTES)
                if (Buffer* buffer = cache_.take()) taken_.push_back(buffer);
                else break;
            if (taken_.size() < wanted) {
                for (Buffer* buffer : taken_) cache_.give(buffer);
                taken_.clear();
                return line.size() > LINE_MAX_BYTES && drop();
            }
            for (Buffer* buffer : taken_) {
                if (open_ != nullptr) {
                    fill(line, CAPACITY - open_->size);
                    hand_over(std::unique_lock(state_->mutex));
                }
                open_ = buffer;
            }
            taken_.clear();
        }
        fill(line, line.size());
        ++open_->lines;
        return true;
    }
    void fill(std::string_view& line, std::size_t bytes) {
        std::memcpy(open_->bytes + open_->size, line.data(), bytes);
        open_->size += static_cast<std::uint32_t>(bytes);
        line.remove_prefix(bytes);
    }

    void hand_over(std::unique_lock<std::mutex> lock) {
        state_->queue[(state_->first + state_->queued++) % BUFFERS] = std::exchange(open_, nullptr);
        lock.unlock();
        state_->work.notify_one();
    }

    bool drop() {
        state_->dropped.fetch_add(1, std::memory_order_relaxed);
        ++hole_;
        return true;
    }

    std::string_view lost_line() {
        lost_text_.clear();
        format_lost(lost_ndjson_, hole_, lost_text_);
        return lost_text_.view();
    }

    const std::shared_ptr<State> state_;
    Buffers::Cache cache_;
    std::thread thread_;
    Buffer* open_ = nullptr;
    std::vector<Buffer*> taken_;
    std::uint64_t hole_ = 0;  // lines dropped since the last one that was taken
    bool waits_ = false;
    Ndjson lost_ndjson_;
    TextBuffer lost_text_;
};

}  // namespace lob::publish
