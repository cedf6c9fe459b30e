// Exported: the data stream and its buffers.
#include "producer.h"
#include <algorithm>
#include <cstring>

using namespace sim;

namespace {

constexpr size_t MINIMUM_BUFFERS = 2;

Stream& stream_of(HANDLE handle) { return library().handles.get<Stream>(handle, Kind::STREAM); }

Device& owner(const Stream& stream) {
    const std::lock_guard<std::mutex> lock(library().mutex);
    return *library().devices.at(&stream.camera);
}

void stream_info(Stream& stream, COMMAND command, const Answer& answer) {
    Camera& camera = stream.camera;
    const std::lock_guard<std::mutex> lock(camera.mutex);
    switch (command) {
        case STREAM_INFO_ID: return answer.text("stream0");
        case STREAM_INFO_NUM_DELIVERED:
        case STREAM_INFO_NUM_STARTED: return answer.u64(camera.frames_delivered);
        case STREAM_INFO_NUM_UNDERRUN: return answer.u64(camera.underruns);
        case STREAM_INFO_NUM_ANNOUNCED: return answer.length(stream.buffers.size());
        case STREAM_INFO_NUM_QUEUED: return answer.length(stream.input.size());
        case STREAM_INFO_NUM_AWAIT_DELIVERY: return answer.length(stream.output.size());
        case STREAM_INFO_PAYLOAD_SIZE: return answer.length(camera.payload_bytes());
        case STREAM_INFO_IS_GRABBING: return answer.flag(stream.grabbing());
        case STREAM_INFO_DEFINES_PAYLOADSIZE: return answer.flag(true);
        case STREAM_INFO_TLTYPE: return answer.text("Custom");
        case STREAM_INFO_NUM_CHUNKS_MAX: return answer.length(CHUNK_COUNT);
        case STREAM_INFO_BUF_ANNOUNCE_MIN: return answer.length(MINIMUM_BUFFERS);
        case STREAM_INFO_BUF_ALIGNMENT: return answer.length(1);
        default: not_available("this information of the stream");
    }
}

void buffer_info(const Buffer& buffer, COMMAND command, const Answer& answer) {
    switch (command) {
        case BUFFER_INFO_BASE: return answer.pointer(buffer.base);
        case BUFFER_INFO_SIZE: return answer.length(buffer.size);
        case BUFFER_INFO_USER_PTR: return answer.pointer(buffer.user);
        case BUFFER_INFO_TIMESTAMP:
        case BUFFER_INFO_TIMESTAMP_NS:
            if (!buffer.stamped) not_available("a timestamp of this buffer");
            return answer.u64(static_cast<uint64_t>(buffer.timestamp_ns));
        case BUFFER_INFO_NEW_DATA: return answer.flag(buffer.fresh);
        case BUFFER_INFO_IS_QUEUED: return answer.flag(buffer.place == Buffer::Place::INPUT || buffer.place == Buffer::Place::OUTPUT);
        case BUFFER_INFO_IS_ACQUIRING: return answer.flag(buffer.place == Buffer::Place::CAMERA);
        case BUFFER_INFO_IS_INCOMPLETE: return answer.flag(buffer.incomplete);
        case BUFFER_INFO_TLTYPE: return answer.text("Custom");
        case BUFFER_INFO_SIZE_FILLED:
        case BUFFER_INFO_DATA_SIZE: return answer.length(buffer.filled);
        case BUFFER_INFO_WIDTH: return answer.length(buffer.width);
        case BUFFER_INFO_HEIGHT:
        case BUFFER_INFO_DELIVERED_IMAGEHEIGHT: return answer.length(buffer.height);
        case BUFFER_INFO_XPADDING: return answer.length(buffer.padding);
        case BUFFER_INFO_XOFFSET:
        case BUFFER_INFO_YOFFSET:
        case BUFFER_INFO_YPADDING:
        case BUFFER_INFO_IMAGEOFFSET: return answer.length(0);
        case BUFFER_INFO_FRAMEID: return answer.u64(buffer.frame_id);
        case BUFFER_INFO_IMAGEPRESENT: return answer.flag(true);
        case BUFFER_INFO_PAYLOADTYPE: return answer.length(PAYLOAD_TYPE_IMAGE);
        case BUFFER_INFO_PIXELFORMAT: return answer.u64(buffer.pixel_format);
        case BUFFER_INFO_PIXELFORMAT_NAMESPACE: return answer.u64(PIXELFORMAT_NAMESPACE_PFNC_32BIT);
        case BUFFER_INFO_DELIVERED_CHUNKPAYLOADSIZE: return answer.length(8 * buffer.chunk_ids.size());
        case BUFFER_INFO_PIXEL_ENDIANNESS: return answer.i32(PIXELENDIANNESS_LITTLE);
        case BUFFER_INFO_DATA_LARGER_THAN_BUFFER: return answer.flag(buffer.overflown);
        case BUFFER_INFO_CONTAINS_CHUNKDATA: return answer.flag(!buffer.chunk_ids.empty());
        default: not_available("this information of the buffer");
    }
}

void flush(Stream& stream, COMMAND kind) {
    const auto queue = [&](Buffer* buffer) {
        buffer->place = Buffer::Place::INPUT;
        stream.input.push_back(buffer);
    };
    const auto discard = [](std::deque<Buffer*>& from) {
        for (Buffer* buffer : from) buffer->place = Buffer::Place::CONSUMER;
        from.clear();
    };
    switch (kind) {
        case ACQ_QUEUE_INPUT_TO_OUTPUT:
            for (Buffer* buffer : stream.input) {
                buffer->place = Buffer::Place::OUTPUT;
                buffer->fresh = false;
                stream.output.push_back(buffer);
            }
            stream.input.clear();
            return;
        case ACQ_QUEUE_OUTPUT_DISCARD: return discard(stream.output);
        case ACQ_QUEUE_ALL_DISCARD:
            discard(stream.output);
            return discard(stream.input);
        case ACQ_QUEUE_ALL_TO_INPUT: discard(stream.output); [[fallthrough]];
        case ACQ_QUEUE_UNQUEUED_TO_INPUT:
            for (auto& entry : stream.buffers)
                if (entry.second->place == Buffer::Place::CONSUMER) queue(entry.first);
            return;
        default: throw Error(GC_ERR_INVALID_PARAMETER, "no such flush");
    }
}

}  // namespace

GENTL_EXPORT GC_ERROR DSAnnounceBuffer(HANDLE handle, void* memory, size_t size, void* user, HANDLE* out) {
    return guarded([&] {
        Stream& stream = stream_of(handle);
        if (!memory || !out) throw Error(GC_ERR_INVALID_PARAMETER, "null pointer");
        auto buffer = std::make_unique<Buffer>();
        buffer->base = static_cast<uint8_t*>(memory);
        buffer->size = size;
        buffer->user = user;
        *out = buffer.get();
        const std::lock_guard<std::mutex> lock(stream.camera.mutex);
        stream.buffers[buffer.get()] = std::move(buffer);
    });
}
GENTL_EXPORT GC_ERROR DSRevokeBuffer(HANDLE handle, HANDLE which, void** memory, void** user) {
    return guarded([&] {
        Stream& stream = stream_of(handle);
        const std::lock_guard<std::mutex> lock(stream.camera.mutex);
        Buffer& buffer = stream.buffer(which);
        if (buffer.place == Buffer::Place::INPUT || buffer.place == Buffer::Place::CAMERA) throw Error(GC_ERR_BUSY, "the buffer is in use");
        if (memory) *memory = buffer.base;
        if (user) *user = buffer.user;
        stream.output.erase(std::remove(stream.output.begin(), stream.output.end(), &buffer), stream.output.end());
        stream.buffers.erase(&buffer);
    });
}
GENTL_EXPORT GC_ERROR DSQueueBuffer(HANDLE handle, HANDLE which) {
    return guarded([&] {
        Stream& stream = stream_of(handle);
        const std::lock_guard<std::mutex> lock(stream.camera.mutex);
        Buffer& buffer = stream.buffer(which);
        if (buffer.place != Buffer::Place::CONSUMER) throw Error(GC_ERR_RESOURCE_IN_USE, "the buffer is queued already");
        buffer.place = Buffer::Place::INPUT;
        buffer.fresh = false;
        stream.input.push_back(&buffer);
    });
}
GENTL_EXPORT GC_ERROR DSFlushQueue(HANDLE handle, COMMAND kind) {
    return guarded([&] {
        Stream& stream = stream_of(handle);
        const std::lock_guard<std::mutex> lock(stream.camera.mutex);
        flush(stream, kind);
    });
}
GENTL_EXPORT GC_ERROR DSStartAcquisition(HANDLE handle, COMMAND, uint64_t) {
    return guarded([&] { stream_of(handle).start(); });
}
GENTL_EXPORT GC_ERROR DSStopAcquisition(HANDLE handle, COMMAND) {
    return guarded([&] {
        Stream& stream = stream_of(handle);
        {
            const std::lock_guard<std::mutex> lock(stream.camera.mutex);
            if (stream.camera.strikes(FAULT_STOP_FAIL, ++stream.camera.store->stops)) throw Error(GC_ERR_IO, "the stream does not stop");
        }
        stream.stop();
    });
}
GENTL_EXPORT GC_ERROR DSGetInfo(HANDLE handle, COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] { stream_info(stream_of(handle), command, {type, buffer, size}); });
}
GENTL_EXPORT GC_ERROR DSGetBufferInfo(HANDLE handle, HANDLE which, COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] {
        Stream& stream = stream_of(handle);
        const std::lock_guard<std::mutex> lock(stream.camera.mutex);
        buffer_info(stream.buffer(which), command, {type, buffer, size});
    });
}
GENTL_EXPORT GC_ERROR DSGetBufferChunkData(HANDLE handle, HANDLE which, SINGLE_CHUNK_DATA* chunks, size_t* count) {
    return guarded([&] {
        Stream& stream = stream_of(handle);
        const std::lock_guard<std::mutex> lock(stream.camera.mutex);
        const Buffer& buffer = stream.buffer(which);
        if (buffer.chunk_ids.empty()) throw Error(GC_ERR_NO_DATA, "the frame has no chunk data");
        const size_t room = *count;
        *count = buffer.chunk_ids.size();
        if (!chunks) return;
        if (room < *count) throw Error(GC_ERR_BUFFER_TOO_SMALL, "more chunks than room");
        for (size_t i = 0; i < *count; ++i) chunks[i] = {buffer.chunk_ids[i], static_cast<ptrdiff_t>(buffer.image_bytes + 8 * i), 8};
    });
}
GENTL_EXPORT GC_ERROR DSGetBufferID(HANDLE handle, uint32_t index, HANDLE* buffer) {
    return guarded([&] {
        Stream& stream = stream_of(handle);
        const std::lock_guard<std::mutex> lock(stream.camera.mutex);
        if (index >= stream.buffers.size()) throw Error(GC_ERR_INVALID_INDEX, "no such buffer");
        *buffer = std::next(stream.buffers.begin(), index)->first;
    });
}
GENTL_EXPORT GC_ERROR DSGetParentDev(HANDLE handle, HANDLE* device) {
    return guarded([&] { *device = &owner(stream_of(handle)); });
}
GENTL_EXPORT GC_ERROR DSClose(HANDLE handle) {
    return guarded([&] { library().close_stream(owner(stream_of(handle))); });
}

// What the standard names and this producer does not have. Exported all the same: consumers complain of missing names.
#define ABSENT(name, ...) \
    GENTL_EXPORT GC_ERROR name(__VA_ARGS__) { return guarded([] { not_implemented(#name); }); }
ABSENT(DSAllocAndAnnounceBuffer, HANDLE, size_t, void*, HANDLE*)
ABSENT(DSAnnounceCompositeBuffer, HANDLE, size_t, void**, size_t*, void*, HANDLE*)
ABSENT(DSGetNumFlows, HANDLE, uint32_t*)
ABSENT(DSGetFlowInfo, HANDLE, uint32_t, COMMAND, INFO_DATATYPE*, void*, size_t*)
ABSENT(DSGetNumBufferSegments, HANDLE, HANDLE, uint32_t*)
ABSENT(DSGetBufferSegmentInfo, HANDLE, HANDLE, uint32_t, COMMAND, INFO_DATATYPE*, void*, size_t*)
ABSENT(DSGetNumBufferParts, HANDLE, HANDLE, uint32_t*)
ABSENT(DSGetBufferPartInfo, HANDLE, HANDLE, uint32_t, COMMAND, INFO_DATATYPE*, void*, size_t*)
