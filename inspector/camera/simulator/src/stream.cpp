#include "stream.h"
#include <algorithm>
#include <csignal>
#include <cstring>

namespace sim {
namespace {

constexpr uint64_t NOT_SENT =
    FAULT_DROP | FAULT_STALL | FAULT_LOST | FAULT_HANG | FAULT_CRASH | FAULT_UNDERRUN | FAULT_LOST_SILENT | FAULT_MISSED_TRIGGER;
constexpr uint64_t STALE_BY = 5;         // triggers
constexpr int64_t JUMP_STEPS = 100;      // of the encoder
constexpr uint64_t CORRUPT_BY = 60;      // the greatest number whose bits corrupt chunk data have wrong
constexpr size_t LEAK_BYTES = 4u << 20;
constexpr uint32_t BAYER_GB8 = 0x0108000A;

std::chrono::steady_clock::time_point host_time(int64_t ns) {
    return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(ns));  // libstdc++'s steady clock is CLOCK_MONOTONIC
}

}  // namespace

Buffer& Stream::buffer(HANDLE handle) {
    const auto found = buffers.find(static_cast<Buffer*>(handle));
    if (found == buffers.end()) throw Error(GC_ERR_INVALID_HANDLE, "no such buffer");
    return *found->second;
}

void Stream::start() {
    const std::lock_guard<std::mutex> lock(camera.mutex);
    if (running_) throw Error(GC_ERR_RESOURCE_IN_USE, "the stream runs already");
    if (camera.strikes(FAULT_START_FAIL, ++camera.store->starts)) throw Error(GC_ERR_IO, "the stream does not start");
    camera.frames_delivered = camera.underruns = 0;
    running_ = true;
    thread_ = std::thread([this] { run(); });
}

void Stream::stop() {
    {
        const std::lock_guard<std::mutex> lock(camera.mutex);
        running_ = false;
        camera.changed.notify_all();
    }
    if (thread_.joinable()) thread_.join();
}

void Stream::run() {
    std::unique_lock<std::mutex> lock(camera.mutex);
    while (running_) {
        const int64_t now = now_ns();
        deliver_until(now);
        const int64_t trigger = camera.acquiring ? camera.next_trigger_ns() : NEVER_NS;
        if (trigger <= now) {
            camera.trigger_taken(trigger);
            expose(lock, trigger);
            continue;
        }
        const int64_t wake = pending_.empty() ? trigger : std::min(trigger, pending_.front().due_ns);
        if (wake == NEVER_NS)
            camera.changed.wait(lock);
        else
            camera.changed.wait_until(lock, host_time(wake));
    }
    deliver_until(NEVER_NS);
}

// What really happens to this trigger; a camera that is gone or hangs has no other faults.
uint64_t Stream::effects(int64_t trigger_ns, const FaultHit& hit, bool bounce) {
    const uint64_t line = bounce ? FAULT_LINE_BOUNCE : 0;
    if (camera.dead) return FAULT_LOST | line;
    if (trigger_ns < camera.hung_until_ns) return FAULT_HANG | line;
    uint64_t flags = (hit.flags & ~(CALL_FAULTS | FAULT_LINE_BOUNCE)) | line;
    if (hit.flags & FAULT_LINE_BOUNCE && !bounce) camera.bounce_at(trigger_ns + hit.lasts_ns(FAULT_LINE_BOUNCE));
    const auto lasting = [&](uint64_t fault, int64_t& until_ns, bool for_ever) {
        const int64_t lasts_ns = hit.lasts_ns(fault);
        if (flags & fault) until_ns = lasts_ns || !for_ever ? trigger_ns + lasts_ns : NEVER_NS;
        if (trigger_ns < until_ns) flags |= fault;
    };
    lasting(FAULT_STALL, camera.stalled_until_ns, false);
    lasting(FAULT_LOST_SILENT, camera.silent_until_ns, true);
    lasting(FAULT_INCOMPLETE_ALL, camera.incomplete_until_ns, false);
    if (flags & FAULT_LOST) {
        camera.dead = camera.power_cycled = true;
        const int64_t lost_ns = hit.lasts_ns(FAULT_LOST);
        camera.store->lost_until_ns = lost_ns ? trigger_ns + lost_ns : NEVER_NS;
        return FAULT_LOST | line;
    }
    lasting(FAULT_HANG, camera.hung_until_ns, true);
    return flags;
}

// The faults of the image that are possible: there may be no image before it.
uint64_t Stream::with_images(uint64_t flags, uint64_t counter) const {
    if (camera.last_number == Camera::NO_NUMBER) flags &= ~(FAULT_FROZEN | FAULT_IMAGE_TORN);
    if (counter <= STALE_BY) flags &= ~FAULT_STALE_FRAME;
    if (camera.last_frame_id == 0) flags &= ~FAULT_DUPLICATE;
    return flags;
}

// What stays wrong from this trigger on.
void Stream::slip(uint64_t flags, const FaultHit& hit) {
    const int64_t step = camera.whole(Node::SimEncoderStep);
    auto& state = *camera.store.operator->();
    if (flags & FAULT_ENCODER_JUMP) state.encoder_offset += JUMP_STEPS * step;
    if (flags & FAULT_ENCODER_REVERSE) state.encoder_offset -= 2 * step;
    if (flags & FAULT_TIMESTAMP_JUMP) state.clock_shift_ns += hit.lasts_ns(FAULT_TIMESTAMP_JUMP);
    if (flags & FAULT_TIMESTAMP_BACKWARDS) state.clock_shift_ns -= hit.lasts_ns(FAULT_TIMESTAMP_BACKWARDS);
    if (flags & FAULT_MISSED_TRIGGER) ++state.missed;
    if (flags & FAULT_EVENT_ERROR) {
        ++camera.event_errors;
        camera.delivered.notify_all();
    }
    if (flags & FAULT_LEAK) {
        static std::vector<std::unique_ptr<char[]>>* const kept = new std::vector<std::unique_ptr<char[]>>;  // never freed
        kept->push_back(std::make_unique<char[]>(LEAK_BYTES));
        std::memset(kept->back().get(), 1, LEAK_BYTES);
    }
}

uint64_t Stream::frame_id(uint64_t flags) {
    if (flags & FAULT_RESET) camera.next_frame_id = 1;
    uint64_t id = camera.next_frame_id++;
    if (camera.short_ids && id > 65535) {
        id = 1;
        camera.next_frame_id = 2;
    }
    if (flags & FAULT_DUPLICATE) id = camera.last_frame_id;
    camera.last_frame_id = id;
    return id;
}

Buffer* Stream::take_buffer() {
    if (input.empty()) return nullptr;
    Buffer* taken = input.front();
    input.pop_front();
    taken->place = Buffer::Place::CAMERA;
    return taken;
}

void Stream::expose(std::unique_lock<std::mutex>& lock, int64_t trigger_ns) {
    const uint64_t counter = camera.store->counter + 1;
    const FaultHit hit = camera.plan.at(counter);
    const bool bounce = camera.take_bounce();
    uint64_t flags = with_images(effects(trigger_ns, hit, bounce), counter);
    uint64_t number = bounce ? counter - 2 : counter - 1;  // a bounce shows the part of the trigger before it
    if (flags & FAULT_FROZEN)
        number = camera.last_number;
    else if (flags & FAULT_STALE_FRAME)
        number -= STALE_BY;
    const uint64_t id = flags & (FAULT_LOST | FAULT_MISSED_TRIGGER) ? 0 : frame_id(flags);
    if (!(flags & NOT_SENT) && input.empty()) {
        flags |= FAULT_UNDERRUN;
        ++camera.underruns;
    }
    slip(flags, hit);
    camera.count(trigger_ns, camera.image_index(number), flags);
    if (flags & FAULT_CRASH) std::raise(SIGSEGV);
    if (flags & NOT_SENT) return;
    Exposure what{trigger_ns, number, id, flags, bounce ? 1u : 0u, camera.encoder(counter) + (bounce ? 1 : 0)};
    if (flags & FAULT_IMAGE_SHIFTED) what.shift += static_cast<uint32_t>(camera.whole(Node::Width)) / 4;
    Buffer* target = take_buffer();
    Buffer* again = flags & FAULT_REPEAT ? take_buffer() : nullptr;
    Buffer* second = flags & FAULT_DOUBLE_TRIGGER ? take_buffer() : nullptr;
    const int64_t late_ns = std::max(hit.lasts_ns(FAULT_LATE), hit.lasts_ns(FAULT_REORDER));
    const int64_t ready_ns = trigger_ns + static_cast<int64_t>(camera.real(Node::ExposureTime) * 1e3) + late_ns;
    fill(lock, *target, what);
    schedule(target, ready_ns, (flags & FAULT_REORDER) != 0);
    if (again) {
        fill(lock, *again, what);
        schedule(again, ready_ns, false);
    }
    if (second) {  // a little later, of the same part, which has moved on
        const int64_t after_ns = hit.lasts_ns(FAULT_DOUBLE_TRIGGER);
        fill(lock, *second, {trigger_ns + after_ns, number, frame_id(0), flags, what.shift + 1, what.encoder + 1});
        schedule(second, ready_ns + after_ns, false);
    }
    camera.last_number = number;
}

// The lock is let go while the pixels are written: nobody else touches a buffer that is in the camera's hands.
void Stream::fill(std::unique_lock<std::mutex>& lock, Buffer& target, const Exposure& exposure) {
    const uint64_t flags = exposure.flags;
    Rendering what;
    what.feed = &camera.feed;
    what.number = exposure.number;
    what.width = static_cast<uint32_t>(camera.whole(Node::Width));
    what.height = static_cast<uint32_t>(camera.whole(Node::Height)) / (flags & FAULT_SIZE_CHANGE ? 2 : 1);
    what.pixel_format = static_cast<uint32_t>(camera.whole(Node::PixelFormat));
    what.padding = static_cast<uint32_t>(camera.whole(Node::SimLinePadding)) + (flags & FAULT_X_PADDING ? PADDING_BYTES : 0);
    what.brightness = camera.brightness();
    what.faults = flags;
    what.shift = exposure.shift;
    what.torn_from = camera.last_number;
    const bool overflown = (flags & FAULT_PAYLOAD_TOO_LARGE) != 0;
    const size_t line = size_t{what.width} * bytes_per_pixel(what.pixel_format) + what.padding, image = line * what.height;
    auto chunk_ids = camera.chunk_ids();
    const size_t payload = image + 8 * chunk_ids.size();
    const bool incomplete = flags & (FAULT_INCOMPLETE | FAULT_INCOMPLETE_ALL) || target.size < payload;
    const auto rows = static_cast<uint32_t>(std::min<size_t>(incomplete || overflown ? what.height / 2 : what.height, target.size / line));
    const uint64_t counter = camera.own_count();
    const int64_t timestamp = camera.clock(exposure.trigger_ns);
    if (incomplete || overflown || flags & FAULT_CHUNK_MISSING) chunk_ids.clear();
    const uint64_t wrong = flags & FAULT_CHUNK_CORRUPT ? 1 + counter % CORRUPT_BY : 0;
    const uint64_t chunks[CHUNK_COUNT] = {exposure.id, static_cast<uint64_t>(timestamp), static_cast<uint64_t>(exposure.encoder),
                                          camera.line_status(), counter};
    lock.unlock();
    render(what, rows, target.base);
    for (size_t i = 0; i < chunk_ids.size(); ++i) {
        const uint64_t value = chunks[chunk_ids[i] - 1] ^ wrong;
        std::memcpy(target.base + image + 8 * i, &value, 8);
    }
    lock.lock();
    target.incomplete = incomplete;
    target.overflown = overflown;
    target.stamped = !(flags & FAULT_TIMESTAMP_ABSENT);
    target.frame_id = exposure.id;
    target.timestamp_ns = timestamp;
    target.width = what.width;
    target.height = what.height;
    target.pixel_format = flags & FAULT_WRONG_PIXEL_FORMAT ? BAYER_GB8 : what.pixel_format;
    target.padding = what.padding;
    target.image_bytes = image;
    target.filled = incomplete ? rows * line : overflown ? target.size : payload;
    target.chunk_ids = chunk_ids;
}

void Stream::schedule(Buffer* buffer, int64_t due_ns, bool overtaken) {
    if (!overtaken) last_due_ns_ = due_ns = std::max(due_ns, last_due_ns_);
    auto after = pending_.end();
    while (after != pending_.begin() && std::prev(after)->due_ns > due_ns) --after;
    pending_.insert(after, {due_ns, buffer});
}

void Stream::deliver_until(int64_t time_ns) {
    for (; !pending_.empty() && pending_.front().due_ns <= time_ns; pending_.pop_front()) {
        Buffer* buffer = pending_.front().buffer;
        if (camera.dead) {  // gone with the camera: back to the queue, as if never filled
            buffer->place = Buffer::Place::INPUT;
            input.push_back(buffer);
            continue;
        }
        buffer->place = Buffer::Place::OUTPUT;
        buffer->fresh = true;
        output.push_back(buffer);
        ++camera.frames_delivered;
        if (event) ++event->fired;
        camera.delivered.notify_all();
    }
}

}  // namespace sim
