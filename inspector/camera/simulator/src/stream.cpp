#include "stream.h"
#include <algorithm>
#include <csignal>
#include <cstring>

namespace sim {
namespace {

constexpr uint32_t NOT_SENT = FAULT_DROP | FAULT_STALL | FAULT_LOST | FAULT_HANG | FAULT_CRASH | FAULT_UNDERRUN;

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
uint32_t Stream::effects(int64_t trigger_ns, FaultHit& hit) {
    if (camera.dead) return FAULT_LOST;
    if (trigger_ns < camera.hung_until_ns) return FAULT_HANG;
    uint32_t flags = hit.flags;
    if (flags & FAULT_STALL) camera.stalled_until_ns = trigger_ns + hit.stall_ns;
    if (trigger_ns < camera.stalled_until_ns) flags |= FAULT_STALL;
    if (flags & FAULT_LOST) {
        camera.dead = camera.power_cycled = true;
        camera.store->lost_until_ns = hit.lost_ns ? trigger_ns + hit.lost_ns : NEVER_NS;
        return FAULT_LOST;
    }
    if (flags & FAULT_HANG) camera.hung_until_ns = hit.hang_ns ? trigger_ns + hit.hang_ns : NEVER_NS;
    if (camera.last_number == Camera::NO_NUMBER) flags &= ~FAULT_FROZEN;
    if (camera.last_frame_id == 0) flags &= ~FAULT_DUPLICATE;
    return flags;
}

uint64_t Stream::frame_id(uint32_t flags) {
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

void Stream::expose(std::unique_lock<std::mutex>& lock, int64_t trigger_ns) {
    const uint64_t counter = camera.store->counter + 1;
    FaultHit hit = camera.plan.at(counter);
    uint32_t flags = effects(trigger_ns, hit);
    const uint64_t number = flags & FAULT_FROZEN ? camera.last_number : counter - 1;
    const uint64_t id = flags & FAULT_LOST ? 0 : frame_id(flags);
    if (!(flags & NOT_SENT) && input.empty()) {
        flags |= FAULT_UNDERRUN;
        ++camera.underruns;
    }
    camera.count(trigger_ns, camera.image_index(number), flags);
    if (flags & FAULT_CRASH) std::raise(SIGSEGV);
    if (flags & NOT_SENT) return;
    camera.last_number = number;
    Buffer* target = input.front();
    input.pop_front();
    target->place = Buffer::Place::CAMERA;
    Buffer* again = nullptr;
    if (flags & FAULT_REPEAT && !input.empty()) {
        again = input.front();
        input.pop_front();
        again->place = Buffer::Place::CAMERA;
    }
    const int64_t ready_ns = trigger_ns + static_cast<int64_t>(camera.real(Node::ExposureTime) * 1e3) + hit.late_ns;
    fill(lock, *target, trigger_ns, number, id, flags);
    schedule(target, ready_ns, (flags & FAULT_REORDER) != 0);
    if (again) {
        fill(lock, *again, trigger_ns, number, id, flags);
        schedule(again, ready_ns, false);
    }
}

// The lock is let go while the pixels are written: nobody else touches a buffer that is in the camera's hands.
void Stream::fill(std::unique_lock<std::mutex>& lock, Buffer& target, int64_t trigger_ns, uint64_t number, uint64_t id, uint32_t flags) {
    Rendering what;
    what.feed = &camera.feed;
    what.number = number;
    what.width = static_cast<uint32_t>(camera.whole(Node::Width));
    what.height = static_cast<uint32_t>(camera.whole(Node::Height));
    what.pixel_format = static_cast<uint32_t>(camera.whole(Node::PixelFormat));
    what.padding = static_cast<uint32_t>(camera.whole(Node::SimLinePadding));
    what.brightness = camera.brightness();
    what.faults = flags;
    const size_t line = camera.line_bytes(), image = camera.image_bytes(), payload = camera.payload_bytes();
    const bool incomplete = (flags & FAULT_INCOMPLETE) != 0 || target.size < payload;
    const auto rows = static_cast<uint32_t>(std::min<size_t>(incomplete ? what.height / 2 : what.height, target.size / line));
    const uint64_t counter = camera.store->counter;
    const int64_t timestamp = camera.clock(trigger_ns);
    const auto chunk_ids = incomplete ? std::vector<uint32_t>{} : camera.chunk_ids();
    const uint64_t chunks[CHUNK_COUNT] = {id, static_cast<uint64_t>(timestamp),
                                          counter * static_cast<uint64_t>(camera.whole(Node::SimEncoderStep)), camera.line_status(), counter};
    lock.unlock();
    render(what, rows, target.base);
    for (size_t i = 0; i < chunk_ids.size(); ++i) std::memcpy(target.base + image + 8 * i, &chunks[chunk_ids[i] - 1], 8);
    lock.lock();
    target.incomplete = incomplete;
    target.frame_id = id;
    target.timestamp_ns = timestamp;
    target.width = what.width;
    target.height = what.height;
    target.pixel_format = what.pixel_format;
    target.padding = what.padding;
    target.image_bytes = image;
    target.filled = incomplete ? rows * line : payload;
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
