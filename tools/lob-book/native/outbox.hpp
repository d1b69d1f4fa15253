// outbox.hpp - what one input record makes, built in private memory before it goes into the ring.
//
// So a message is applied once however often the ring is found full: only the copying is tried again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "layout.hpp"

namespace lob {

class Outbox {
public:
    // Room for one more record, its size set, header and body zero. Valid until the next add().
    RecordHeader& add(std::uint32_t size_bytes) {
        const std::uint32_t size = align8(size_bytes);
        const std::size_t at = words_;
        words_ += size / 8;
        if (buffer_.size() < words_) buffer_.resize(words_ * 2);
        std::memset(buffer_.data() + at, 0, std::min<std::size_t>(size, sizeof(RecordHeader) + sizeof(BookBody)));
        auto& record = *reinterpret_cast<RecordHeader*>(buffer_.data() + at);
        record.size_bytes = size;
        return record;
    }

    // The next record to go out; null when all have.
    RecordHeader* next() {
        return sent_ < words_ ? reinterpret_cast<RecordHeader*>(buffer_.data() + sent_) : nullptr;
    }
    void sent() { sent_ += next()->size_bytes / 8; }
    bool empty() const { return sent_ == words_; }
    std::uint64_t size_bytes() const { return words_ * 8; }
    void clear() { words_ = sent_ = 0; }

private:
    std::vector<std::uint64_t> buffer_;
    std::size_t words_ = 0;
    std::size_t sent_ = 0;
};

}  // namespace lob
