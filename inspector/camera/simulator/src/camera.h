// The simulated device: registers, clock, line, state. Its acquisition thread and buffers are in stream.h.
//
// Locks: `mutex` guards everything of the camera and of its stream; functions say "locked" where the caller must hold it.
// The handle registry's lock (handles.h) is never held while a camera's is taken.
#pragma once
#include "faults.h"
#include "image.h"
#include "store.h"
#include <array>
#include <condition_variable>
#include <deque>
#include <mutex>

namespace sim {

constexpr uint32_t PADDING_BYTES = 16;  // behind each line of an image with FAULT_X_PADDING

struct CameraConfig {
    unsigned index = 0;
    std::string feed, state_folder, faults;
    uint64_t seed = 0;
    double clock_ppm = 0;
    int64_t clock_offset_ns = 0;
};

union Cell {
    int64_t whole;
    double real;
};

class Camera {
public:
    explicit Camera(const CameraConfig& config);

    const std::string id;
    const unsigned index;
    std::mutex mutex;
    std::condition_variable changed;    // the acquisition thread has something to look at
    std::condition_variable delivered;  // a buffer came, or the waiter was called off
    Feed feed;
    DeviceStore store;
    FaultPlan plan;

    // All below: locked.
    bool opened = false, acquiring = false;
    bool dead = false;  // lost since it was opened: that handle never works again
    bool power_cycled = false;  // lost: its registers are forgotten
    bool xml_broken = false;    // since it was opened: its description is rubbish
    int64_t hung_until_ns = 0, stalled_until_ns = 0, silent_until_ns = 0, incomplete_until_ns = 0;
    unsigned event_errors = 0;  // so many waits for a frame end with an error
    uint64_t frames_delivered = 0, underruns = 0;
    uint64_t next_frame_id = 1, last_frame_id = 0;
    bool short_ids = false;  // frame ids are 16 bits wide and skip 0
    uint64_t last_number = NO_NUMBER;
    static constexpr uint64_t NO_NUMBER = UINT64_MAX;

    // The library is initialised: what the faults that hit this call do holds until it is again.
    void initialise();
    std::string serial() const;
    bool present();
    void open();
    void close();
    // Blocks while the camera hangs; throws when it is lost. First thing in every call that would talk to a device.
    void answer(std::unique_lock<std::mutex>& lock);
    // What slow or failing register access costs; after `answer`, before the access.
    void delay_access(std::unique_lock<std::mutex>& lock);
    // Whether a fault hits the call with this number; it is logged then.
    bool strikes(uint64_t fault, uint64_t number);
    void read_register(uint64_t address, void* data, size_t* size);
    void write_register(uint64_t address, const void* data, size_t size);

    int64_t whole(Node node) const { return cells_[static_cast<size_t>(node)].whole; }
    double real(Node node) const { return cells_[static_cast<size_t>(node)].real; }
    size_t line_bytes() const;
    size_t image_bytes() const { return line_bytes() * static_cast<size_t>(whole(Node::Height)); }
    size_t payload_bytes() const;
    std::vector<uint32_t> chunk_ids() const;
    int64_t clock(int64_t host_ns) const;  // the camera's own clock
    double brightness() const;
    uint64_t line_status() const;

    int64_t next_trigger_ns();                    // host time of the next trigger, NEVER_NS if none is in sight
    void trigger_taken(int64_t time_ns);          // the trigger at time_ns is being handled: plan the one after it
    void count(int64_t time_ns, uint64_t image, uint64_t flags);
    bool take_bounce();                           // whether the trigger that was taken is none: the line bounced
    void bounce_at(int64_t time_ns) { bounce_ns_ = time_ns; }
    int64_t encoder(uint64_t counter) const;
    uint64_t own_count() const { return store->counter - static_cast<uint64_t>(store->missed); }
    uint64_t image_index(uint64_t number) const { return feed.empty() ? number : number % feed.count(); }

private:
    enum class TriggerMode { FREE, SOFTWARE, LINE };

    TriggerMode trigger_mode() const;
    void reset_registers();
    void start_acquisition();
    void line_start(int64_t at_ns);
    int64_t line_time(uint64_t counter) const;
    int64_t line_next_ns() const;
    bool exhausted() const;
    void pass_unseen(int64_t until_ns);
    Cell read(Node node);
    void write(Node node, Cell value);
    void write_command(Node node);
    void apply_fault();
    Cell& cell(Node node) { return cells_[static_cast<size_t>(node)]; }

    const CameraConfig config_;
    std::array<Cell, NODE_COUNT> cells_{};
    std::array<bool, CHUNK_COUNT> chunk_enabled_{};
    std::deque<int64_t> software_triggers_;
    int64_t free_next_ns_ = NEVER_NS, bounce_ns_ = NEVER_NS;
    bool bounced_ = false, listed_ = true, other_serial_ = false;
};

}  // namespace sim
