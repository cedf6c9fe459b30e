// The camera's data stream: the consumer's buffers and the thread that exposes, renders and delivers.
#pragma once
#include "camera.h"
#include "handles.h"
#include <list>
#include <map>
#include <memory>
#include <thread>

namespace sim {

struct Buffer {
    uint8_t* base = nullptr;
    size_t size = 0;
    void* user = nullptr;
    enum class Place { CONSUMER, INPUT, CAMERA, OUTPUT } place = Place::CONSUMER;
    bool fresh = false, incomplete = false, overflown = false, stamped = true;
    uint64_t frame_id = 0;
    int64_t timestamp_ns = 0;
    uint32_t width = 0, height = 0, pixel_format = MONO8, padding = 0;
    size_t filled = 0, image_bytes = 0;
    std::vector<uint32_t> chunk_ids;  // each 8 bytes, in this order behind the image
};

class Stream;

struct EventHandle : Object {
    explicit EventHandle(Stream* of) : Object(Kind::EVENT), stream(of) {}
    Stream* const stream;
    bool killed = false;
    uint64_t fired = 0;
};

class Stream : public Object {
public:
    explicit Stream(Camera& of) : Object(Kind::STREAM), camera(of) {}
    ~Stream() override { stop(); }

    Camera& camera;
    // All below: guarded by camera.mutex.
    std::map<Buffer*, std::unique_ptr<Buffer>> buffers;
    std::deque<Buffer*> input, output;
    std::unique_ptr<EventHandle> event;
    bool grabbing() const { return running_; }
    Buffer& buffer(HANDLE handle);

    // Not locked.
    void start();
    void stop();

private:
    struct Delivery {
        int64_t due_ns;
        Buffer* buffer;
    };

    void run();
    struct Exposure {
        int64_t trigger_ns;
        uint64_t number, id, flags;
        uint32_t shift;  // pixels that the part has moved on
        int64_t encoder;
    };

    void expose(std::unique_lock<std::mutex>& lock, int64_t trigger_ns);
    uint64_t effects(int64_t trigger_ns, const FaultHit& hit, bool bounce);
    uint64_t with_images(uint64_t flags, uint64_t counter) const;
    void slip(uint64_t flags, const FaultHit& hit);
    uint64_t frame_id(uint64_t flags);
    Buffer* take_buffer();
    void fill(std::unique_lock<std::mutex>& lock, Buffer& target, const Exposure& what);
    void schedule(Buffer* buffer, int64_t due_ns, bool overtaken);
    void deliver_until(int64_t time_ns);

    bool running_ = false;
    std::list<Delivery> pending_;  // by due time
    int64_t last_due_ns_ = 0;
    std::thread thread_;
};

}  // namespace sim
