// raw.hpp - writing one raw record in place: what lob-connect does once a message.
#pragma once

#include <cstring>
#include <string_view>

#include "spsc.hpp"
#include "trace.hpp"

namespace lob {

enum class RawWrite : int { written = 0, full = 1, oversize = 2 };

// Header, RawBody, url, payload; committed. Nothing is written unless all of it fits.
inline RawWrite write_raw(SpscWriter<>& writer, RecordType type, std::uint16_t connection, std::uint32_t session,
                          std::int64_t recv_ns, std::int64_t origin_ns, std::string_view url, std::string_view payload) {
    const std::uint64_t size = sizeof(RecordHeader) + sizeof(RawBody) + url.size() + payload.size();
    if (!writer.fits(size)) return RawWrite::oversize;
    RecordHeader* record = writer.claim(static_cast<std::uint32_t>(size));
    if (record == nullptr) return RawWrite::full;
    record->type = static_cast<std::uint16_t>(type);
    record->flags = 0;
    record->raw_seq = record->ring_seq;
    record->exch_ns = 0;
    record->recv_ns = recv_ns;
    record->origin_ns = origin_ns;
    record->instrument = NO_INSTRUMENT;
    record->version = 0;
    record->connection = connection;
    record->session = session;
    auto* body = reinterpret_cast<RawBody*>(record + 1);
    body->url_bytes = static_cast<std::uint32_t>(url.size());
    body->payload_bytes = static_cast<std::uint32_t>(payload.size());
    auto* text = reinterpret_cast<char*>(body + 1);
    std::memcpy(text, url.data(), url.size());
    std::memcpy(text + url.size(), payload.data(), payload.size());
    record->stage_ns[0] = stage_stamp(origin_ns, mono_ns());
    record->stage_ns[1] = record->stage_ns[2] = record->stage_ns[3] = 0;
    trace_point_at(Point::websocket_receive, record->raw_seq, origin_ns);
    measure(Stage::connect, *record);
    writer.commit(record->ring_seq);
    return RawWrite::written;
}

}  // namespace lob
