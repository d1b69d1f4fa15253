// asker.hpp - when snapshots are asked for: one open request a book, each pause twice the one before, all of them paced.
//
// A request is due at `request_due_ns` of its book, and again after the pause if no answer has made the book whole. What
// is due beyond requests_per_s waits for its turn. Requests go upstream by who takes them from requests() (pump.hpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "book.hpp"

namespace lob {

struct Asking {
    bool asks = true;  // false: nobody upstream answers (a replay)
    std::uint64_t first_request_id = 1;
    std::uint32_t requests_per_s = 20;
    std::uint32_t requests_burst = 20;
    std::int64_t backoff_ns = 1'000'000'000;
    std::int64_t backoff_max_ns = 30'000'000'000;
    std::int64_t settled_ns = 10'000'000'000;  // a book live for less and wrong again waits before it asks
};

class Asker {
public:
    explicit Asker(const Asking& asking) : asking_(asking), next_id_(asking.first_request_id) {}

    // Not taken yet, oldest first.
    std::deque<Request>& requests() { return requests_; }
    // When ask_due() has something to do next.
    std::int64_t due_ns() const { return due_ns_; }

    // One request at most is open a book; one that is due already keeps its time.
    void want(Book& book, std::int64_t due_ns) {
        if (!asking_.asks || book.request_due_ns != NEVER) return;
        book.request_due_ns = due_ns;
        due_ns_ = std::min(due_ns_, due_ns);
    }
    // The book was live and is wrong. A venue in auction stays crossed: without a pause we would resubscribe as fast as
    // it answers.
    void want_after(Book& book, Reason reason, std::int64_t now_ns) {
        const bool settled = now_ns - book.live_since_ns >= asking_.settled_ns;
        if (settled || (reason != Reason::crossed && reason != Reason::checksum)) {
            book.backoff_ns = asking_.backoff_ns;
            return want(book, now_ns);
        }
        const std::int64_t due_ns = now_ns + book.backoff_ns;
        back_off(book);
        want(book, due_ns);
    }
    // The answer was of no use.
    void again(Book& book, std::int64_t now_ns) { want(book, now_ns + book.backoff_ns); }

    // Nothing is asked for it any more; an answer that is under way still counts.
    void withdraw(Book& book) { book.request_due_ns = NEVER; }
    // The book is whole.
    void settled(Book& book) {
        withdraw(book);
        book.request_id = 0;
    }
    // As if nothing had ever been asked for it.
    void forget(Book& book) {
        settled(book);
        book.backoff_ns = asking_.backoff_ns;
    }
    // Upstream cannot answer this request; false if it is not the book's.
    bool refused(Book& book, std::uint64_t request_id) {
        if (book.request_id == 0 || book.request_id != request_id) return false;
        ++book.counters.refused;
        book.request_id = 0;
        return true;
    }

    // Makes the requests whose time has come; calls `asked(book)` after each.
    template <class Asked>
    void ask_due(const std::vector<std::unique_ptr<Book>>& books, std::int64_t now_ns, Asked&& asked) {
        if (due_ns_ > now_ns) return;
        const std::int64_t interval_ns = 1'000'000'000 / std::max(asking_.requests_per_s, 1u);
        const std::int64_t burst_ns = interval_ns * (std::max(asking_.requests_burst, 1u) - 1);
        std::int64_t next_ns = NEVER;
        for (auto& book : books) {
            if (!book || book->request_due_ns == NEVER) continue;
            if (book->request_due_ns <= now_ns) {
                if (paced_ns_ - burst_ns > now_ns) {
                    next_ns = std::min(next_ns, paced_ns_ - burst_ns);
                    continue;
                }
                paced_ns_ = std::max(paced_ns_, now_ns) + interval_ns;
                ask(*book, now_ns);
                asked(*book);
            }
            next_ns = std::min(next_ns, book->request_due_ns);
        }
        due_ns_ = next_ns;
    }

private:
    static constexpr std::int64_t NEVER = INT64_MAX;

    void ask(Book& book, std::int64_t now_ns) {
        Request request{};
        request.id = book.request_id = next_id_++;
        request.kind = static_cast<std::uint16_t>(book.joins() ? RequestKind::snapshot : RequestKind::resync);
        request.reason = static_cast<std::uint16_t>(book.reason);
        std::memcpy(request.symbol, book.facts.symbol, sizeof request.symbol);
        request.symbol[sizeof request.symbol - 1] = '\0';
        requests_.push_back(request);
        ++book.counters.requests;
        book.request_due_ns = now_ns + book.backoff_ns;
        back_off(book);
    }
    void back_off(Book& book) { book.backoff_ns = std::min(2 * book.backoff_ns, asking_.backoff_max_ns); }

    const Asking asking_;
    std::deque<Request> requests_;
    std::uint64_t next_id_;
    std::int64_t paced_ns_ = 0;
    std::int64_t due_ns_ = NEVER;
};

}  // namespace lob
