// sync.hpp - may this message be applied to that book? The sequence rules of SequenceRule (sans-I/O).
//
//   rule    apply                    stale       gap            venues
//   range   first <= L+1 <= last     last <= L   first > L+1    Binance spot, Gate, KuCoin
//   chain   prev == L                            prev != L      Binance futures, OKX, Deribit
//   step    last == L+1              last <= L   last > L+1     Coinbase Advanced (of the connection)
//   none    always                                              Kraken v2 (has checksums instead)
//
// L is the number of what was applied last. A chain that joins a snapshot which came by REST is wider for its first
// link, because the snapshot's number S is any number of the venue and need not end a message: last < S is stale,
// and the link whose range prev..last holds S applies (Binance futures: U <= S <= u).
#pragma once

#include <cstdint>

#include "layout.hpp"

namespace lob {

enum class Verdict : std::uint8_t { apply, stale, gap };

class Sync {
public:
    // The book is at `seq` from now on. `joins`: by a snapshot that came by REST.
    void start(std::uint64_t seq, bool joins) {
        last_ = seq;
        joining_ = joins;
    }

    std::uint64_t last() const { return last_; }

    Verdict judge(SequenceRule rule, std::uint64_t first, std::uint64_t last, std::uint64_t prev) const {
        switch (rule) {
            case SequenceRule::range:
                if (last <= last_) return Verdict::stale;
                return first <= last_ + 1 ? Verdict::apply : Verdict::gap;
            case SequenceRule::step:
                if (last <= last_) return Verdict::stale;
                return last == last_ + 1 ? Verdict::apply : Verdict::gap;
            case SequenceRule::chain:
                if (joining_) {
                    if (last < last_) return Verdict::stale;
                    return prev <= last_ || first <= last_ ? Verdict::apply : Verdict::gap;
                }
                return prev == last_ ? Verdict::apply : Verdict::gap;
            case SequenceRule::none: break;
        }
        return Verdict::apply;
    }

    void applied(std::uint64_t last) {
        last_ = last;
        joining_ = false;
    }

private:
    std::uint64_t last_ = 0;
    bool joining_ = false;
};

// The numbers of one connection, which count messages of all kinds: judged once a message, however many records it
// makes. A session begins with whatever number comes first; after it anything but the next number is a gap, also a
// number seen before: on one connection nothing can rightly come twice, so nobody knows what it stands for.
// Source: Coinbase Advanced Trade, "WebSocket Overview", sequence numbers.
class ConnectionSync {
public:
    void restart() { *this = {}; }

    // `raw_seq` 0: the record is from no message and always judged.
    Verdict judge(std::uint64_t seq, std::uint64_t raw_seq) {
        if (raw_seq != 0 && raw_seq == raw_seq_) return Verdict::apply;
        const bool next = !started_ || seq == last_ + 1;
        started_ = true;
        last_ = seq;
        raw_seq_ = raw_seq;
        return next ? Verdict::apply : Verdict::gap;
    }

private:
    bool started_ = false;
    std::uint64_t last_ = 0;
    std::uint64_t raw_seq_ = 0;
};

}  // namespace lob
