// frames.hpp - WebSocket data frames from the bytes of a socket into the raw ring, one copy.
//
//   0                1                2 (also 4, 10)
//   | FIN rsv opcode | MASK length7   | length 16 or 64 | payload ...
//   |  1   0   1, 2  |  0   0..127    |                 |             <- the short way: a whole message in one frame
//
// Everything else (control frames, fragments, reserved bits, a mask, lengths above the limit, text that is no UTF-8, what the
// ring does not take) is handed to the owner byte by byte as it came, for a full implementation of the protocol to judge.
// Its order against the messages is kept: what came before is in the ring, what comes after is not touched yet. When the owner
// has ended the connection it calls stop(), and all that follows is handed on; after a close frame that happens here.
//
// A frame of the short way stays here until it is whole. The bytes of any other are handed on as they come, so that a
// broken header is answered when its second byte is there, and not when the frame is.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "raw.hpp"
#include "utf8.hpp"

namespace lob {

// The way into one raw ring, shared by its connections.
struct RawSink {
    SpscWriter<>& writer;
    std::uint64_t room_bytes;  // free before what is owed is paid: else each gap would get its own LOST record
    bool owing = false;        // records wait for room; nothing may overtake them
    bool copies = false;       // the owner wants every message, too: a recording
    std::uint64_t frames = 0;
    std::uint64_t payload_bytes = 0;
};

// What makes a message worth the owner's look: shorter than this, and one of these in it.
struct Marks {
    std::size_t size_max = 0;
    std::vector<std::string> any_of;

    bool in(std::string_view text) const {
        if (text.size() >= size_max) return false;
        return std::any_of(any_of.begin(), any_of.end(), [&](const std::string& mark) {
            return memmem(text.data(), text.size(), mark.data(), mark.size()) != nullptr;
        });
    }
};

// One session of one connection. The owner of take() has
//   void odd(std::string_view bytes)       the protocol's bytes
//   void message(std::string_view payload) a message that bears a mark, or every one if the sink wants copies; the ring has it
//   void lost(std::uint64_t count)         messages that found no room; called before any other call
//   bool pay()                             write what is owed; true (and sink.owing false) if all of it found room
class FrameReader {
public:
    // Large: fewer reads, fewer acknowledgements (8 KiB messages in a flood: 2.4 us of CPU each; 3.2 with 256 KiB).
    static constexpr std::size_t READ_BYTES = 1 << 20;

    FrameReader(RawSink& sink, std::uint16_t connection, std::uint32_t session, std::uint64_t message_max_bytes, Marks marks)
        : sink_(sink), connection_(connection), session_(session), message_max_bytes_(message_max_bytes), marks_(std::move(marks)) {}

    // Where the next bytes of the socket go. Valid until the next call of anything here.
    std::span<char> room() {
        const std::size_t held = end_ - begin_;
        if (std::max(held + READ_BYTES / 4, wanted_) > capacity_ || (held == 0 && capacity_ > 4 * READ_BYTES)) {
            capacity_ = std::max(held + READ_BYTES, wanted_);
            auto other = std::make_unique_for_overwrite<char[]>(capacity_);
            if (held != 0) std::memcpy(other.get(), buffer_.get() + begin_, held);
            buffer_ = std::move(other);
        } else if (begin_ != 0 && held != 0) {
            std::memmove(buffer_.get(), buffer_.get() + begin_, held);
        }
        begin_ = 0;
        end_ = held;
        return {buffer_.get() + end_, capacity_ - end_};
    }

    // `count` bytes are in the room, read at these times: write and hand on all that is whole.
    template <class Owner>
    void take(std::size_t count, std::int64_t recv_ns, std::int64_t origin_ns, Owner&& owner) {
        end_ += count;
        std::size_t odd_from = begin_;  // [odd_from, begin_) is the protocol's and not handed on yet
        const auto hand_on = [&] {
            const std::string_view odd{buffer_.get() + odd_from, begin_ - odd_from};
            odd_from = begin_;
            if (odd.empty()) return;
            settle(owner);
            owner.odd(odd);
        };
        for (;;) {
            if (stopped_) {
                begin_ = end_;
            } else if (odd_size_ != 0) {
                pass();
            } else if (const Frame frame = look(); frame.kind == Frame::odd) {
                odd_size_ = 0;
                pass();
            } else if (frame.kind == Frame::whole) {
                if (odd_from != begin_) {
                    hand_on();  // it may end the connection: look again
                    continue;
                }
                if (!deliver(frame.payload, recv_ns, origin_ns, owner)) {
                    pass();  // larger than the ring takes: the owner knows what to say
                    continue;
                }
                begin_ += frame.size_bytes;
                wanted_ = 0;
                odd_from = begin_;
                continue;
            } else {
                hand_on();
                if (!stopped_) break;
                continue;
            }
            if (begin_ == end_) {
                hand_on();
                break;
            }
        }
        settle(owner);
    }

    // From now on everything is the protocol's: it has ended the connection.
    void stop() { stopped_ = true; }

    // What is held of a frame that is not whole, for the protocol's last words. It is gone from here.
    std::string_view rest() {
        const std::string_view held{buffer_.get() + begin_, end_ - begin_};
        begin_ = end_;
        return held;
    }

    std::int64_t last_ns() const { return last_ns_; }  // CLOCK_MONOTONIC of the last message; 0: none yet

private:
    struct Frame {
        enum Kind { partial, whole, odd } kind;
        std::string_view payload{};
        std::size_t size_bytes = 0;
    };

    static std::size_t header_bytes(unsigned char second) {
        const unsigned length = second & 0x7F;
        return 2 + (length == 126 ? 2 : length == 127 ? 8 : 0) + (second & 0x80 ? 4 : 0);
    }
    static std::uint64_t length_of(const char* header) {
        const auto* byte = reinterpret_cast<const unsigned char*>(header);
        const unsigned short_length = byte[1] & 0x7F;
        if (short_length < 126) return short_length;
        std::uint64_t length = 0;
        for (int i = 0; i < (short_length == 126 ? 2 : 8); ++i) length = length << 8 | byte[2 + i];
        return length;
    }

    // The frame at begin_.
    Frame look() {
        const std::size_t held = end_ - begin_;
        wanted_ = 0;
        if (held < 2) return {Frame::partial};
        const char* at = buffer_.get() + begin_;
        const auto first = static_cast<unsigned char>(at[0]), second = static_cast<unsigned char>(at[1]);
        if ((first != (FIN | TEXT) && first != (FIN | BINARY)) || second >= 0x80 || fragmented_) return {Frame::odd};
        const std::size_t header = header_bytes(second);
        if (held < header) return {Frame::partial};
        const std::uint64_t length = length_of(at);
        if (length > message_max_bytes_) return {Frame::odd};
        wanted_ = header + length;
        if (held < wanted_) return {Frame::partial};
        const std::string_view payload{at + header, length};
        if (first == (FIN | TEXT) && !is_utf8(payload)) return {Frame::odd};
        return {Frame::whole, payload, wanted_};
    }

    // One step over a frame of the protocol's: its header, then its payload.
    void pass() {
        while (begin_ != end_ && (odd_size_ < 2 || odd_size_ < header_bytes(static_cast<unsigned char>(odd_[1])))) {
            odd_[odd_size_++] = buffer_[begin_++];
            if (odd_size_ >= 2 && odd_size_ == header_bytes(static_cast<unsigned char>(odd_[1]))) pass_bytes_ = length_of(odd_);
        }
        if (odd_size_ < 2 || odd_size_ < header_bytes(static_cast<unsigned char>(odd_[1]))) return;
        const std::uint64_t now = std::min<std::uint64_t>(pass_bytes_, end_ - begin_);
        begin_ += now;
        pass_bytes_ -= now;
        if (pass_bytes_ != 0) return;
        const unsigned opcode = odd_[0] & 0x0F;
        if (opcode <= BINARY) fragmented_ = (odd_[0] & FIN) == 0;
        if (opcode == CLOSE) stopped_ = true;
        odd_size_ = 0;
    }

    // False if the ring takes nothing so large.
    template <class Owner>
    bool deliver(std::string_view payload, std::int64_t recv_ns, std::int64_t origin_ns, Owner& owner) {
        bool room = true;
        if (sink_.owing) {
            room = sink_.writer.free_bytes() >= sink_.room_bytes;
            if (room) {
                settle(owner);
                room = owner.pay();
            }
        }
        if (room) {
            const auto result = write_raw(sink_.writer, RecordType::raw_frame, connection_, session_, recv_ns, origin_ns, {}, payload);
            if (result == RawWrite::oversize) return false;
            room = result == RawWrite::written;
        }
        if (!room) {
            sink_.writer.drop();
            sink_.owing = true;
            ++lost_;
        }
        last_ns_ = origin_ns;
        ++sink_.frames;
        sink_.payload_bytes += payload.size();
        if (sink_.copies || marks_.in(payload)) {
            settle(owner);
            owner.message(payload);
        }
        return true;
    }

    template <class Owner>
    void settle(Owner& owner) {
        if (lost_ == 0) return;
        const std::uint64_t lost = lost_;
        lost_ = 0;
        owner.lost(lost);
    }

    static constexpr unsigned FIN = 0x80, TEXT = 1, BINARY = 2, CLOSE = 8;

    RawSink& sink_;
    const std::uint16_t connection_;
    const std::uint32_t session_;
    const std::uint64_t message_max_bytes_;
    const Marks marks_;

    std::unique_ptr<char[]> buffer_;  // [begin_, end_) is held
    std::size_t capacity_ = 0;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::size_t wanted_ = 0;  // of the frame at begin_, if its header says so

    char odd_[14];  // the header of a frame that is the protocol's, as far as it has come
    std::size_t odd_size_ = 0;
    std::uint64_t pass_bytes_ = 0;  // of its payload, still to come
    bool fragmented_ = false;       // inside a message of several frames
    bool stopped_ = false;

    std::uint64_t lost_ = 0;
    std::int64_t last_ns_ = 0;
};

}  // namespace lob
