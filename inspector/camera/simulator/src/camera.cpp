#include "camera.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

namespace sim {
namespace {

constexpr int64_t FREE_RUN_SLACK_NS = 100'000'000;  // further behind than this, a free-running camera starts its period anew

}  // namespace

Camera::Camera(const CameraConfig& config)
    : id("inspector-simulator-" + std::to_string(config.index)),
      index(config.index),
      feed(config.feed),
      store(config.state_folder, config.index),
      config_(config) {
    plan.set_seed(config.seed + config.index);
    plan.parse(config.faults);
    reset_registers();
}

void Camera::reset_registers() {
    for (size_t i = 0; i < NODE_COUNT; ++i) {
        if (NODES[i].is_float)
            cells_[i].real = NODES[i].initial;
        else
            cells_[i].whole = static_cast<int64_t>(NODES[i].initial);
    }
    chunk_enabled_.fill(true);
    if (!feed.empty()) {
        cell(Node::Width).whole = feed.width();
        cell(Node::Height).whole = feed.height();
    }
    if (store->line_rate_hz > 0) cell(Node::SimLineRate).real = store->line_rate_hz;  // the line is not the camera's to forget
    cell(Node::SimTriggerLimit).whole = static_cast<int64_t>(store->line_limit);
}

// ---- life ----------------------------------------------------------------------------------------------------------------

void Camera::initialise() {
    const uint64_t number = ++store->initialised;
    listed_ = !strikes(FAULT_UNLISTED, number);
    other_serial_ = strikes(FAULT_SAME_SERIAL, number);
}

std::string Camera::serial() const { return "SIM" + std::to_string(other_serial_ ? index ^ 1u : index); }

bool Camera::strikes(uint64_t fault, uint64_t number) {
    if (!(plan.at(number).flags & fault)) return false;
    for (const auto& known : FAULT_NAMES)
        if (known.bit == fault) store.note(known.name, number);
    return true;
}

bool Camera::present() {
    if (!listed_ || now_ns() < store->lost_until_ns) return false;
    if (power_cycled && !opened) {  // while an old handle is open it stays dead
        power_cycled = false;
        reset_registers();
    }
    return true;
}

void Camera::open() {
    if (opened) throw Error(GC_ERR_RESOURCE_IN_USE, "the camera is open already");
    const uint64_t number = ++store->openings;
    if (strikes(FAULT_OPEN_BUSY, number)) throw Error(GC_ERR_RESOURCE_IN_USE, "the camera is in use elsewhere");
    if (!store.lock()) throw Error(GC_ERR_RESOURCE_IN_USE, "another process has the camera open");
    store.refresh();
    opened = true;
    dead = acquiring = false;
    xml_broken = strikes(FAULT_XML_BROKEN, number);
    stalled_until_ns = hung_until_ns = silent_until_ns = incomplete_until_ns = 0;
    event_errors = 0;
    bounce_ns_ = NEVER_NS;
    last_number = NO_NUMBER;
    pass_unseen(now_ns());
}

void Camera::close() {
    opened = acquiring = dead = false;
    cell(Node::TLParamsLocked).whole = 0;
    store.unlock();
}

void Camera::answer(std::unique_lock<std::mutex>& lock) {
    while (now_ns() < hung_until_ns) {
        lock.unlock();
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        lock.lock();
    }
    if (dead) throw Error(GC_ERR_IO, "the camera does not answer");
}

void Camera::delay_access(std::unique_lock<std::mutex>& lock) {
    const FaultHit hit = plan.at(store->counter);
    const uint64_t fault = hit.flags & FAULT_REGISTER_TIMEOUT ? FAULT_REGISTER_TIMEOUT : hit.flags & FAULT_REGISTER_SLOW;
    if (!fault || !store->counter) return;
    strikes(fault, store->counter);
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::nanoseconds(hit.lasts_ns(fault)));
    lock.lock();
    if (fault == FAULT_REGISTER_TIMEOUT) throw Error(GC_ERR_TIMEOUT, "the camera does not answer in time");
    if (dead) throw Error(GC_ERR_IO, "the camera does not answer");
}

int64_t Camera::clock(int64_t host_ns) const {
    const double drift = static_cast<double>(host_ns - store->created_ns) * config_.clock_ppm * 1e-6;
    return host_ns + config_.clock_offset_ns + store->clock_shift_ns + std::llround(drift);
}

// ---- the line ------------------------------------------------------------------------------------------------------------

Camera::TriggerMode Camera::trigger_mode() const {
    if (whole(Node::TriggerMode) == 0) return TriggerMode::FREE;
    return whole(Node::TriggerSource) == 1 ? TriggerMode::LINE : TriggerMode::SOFTWARE;
}

void Camera::line_start(int64_t at_ns) {
    store->line_first = store->line_base = store->counter;
    store->line_epoch_ns = at_ns;
    store->line_rate_hz = real(Node::SimLineRate);
    store->line_limit = static_cast<uint64_t>(whole(Node::SimTriggerLimit));
    store->line_running = 1;
}

int64_t Camera::line_time(uint64_t counter) const {
    return store->line_epoch_ns + std::llround(static_cast<double>(counter - store->line_base) * 1e9 / store->line_rate_hz);
}

bool Camera::exhausted() const {
    const auto limit = static_cast<uint64_t>(whole(Node::SimTriggerLimit));
    return limit != 0 && store->counter - store->line_first >= limit;
}

int64_t Camera::line_next_ns() const { return store->line_running && !exhausted() ? line_time(store->counter + 1) : NEVER_NS; }

void Camera::pass_unseen(int64_t until_ns) {
    for (int64_t at = line_next_ns(); at <= until_ns; at = line_next_ns())
        count(at, image_index(store->counter), at < store->lost_until_ns ? FAULT_LOST : FAULT_ABSENT);
}

void Camera::count(int64_t time_ns, uint64_t image, uint64_t flags) {
    const uint64_t counter = store->counter + 1;
    const int64_t position = encoder(counter) + (flags & FAULT_LINE_BOUNCE ? 1 : 0);
    store.append({counter, time_ns, flags, position, static_cast<uint32_t>(image), static_cast<uint32_t>(own_count() + 1)});
}

bool Camera::take_bounce() {
    const bool bounced = bounced_;
    bounced_ = false;
    return bounced;
}

int64_t Camera::encoder(uint64_t counter) const {
    const int64_t step = whole(Node::SimEncoderStep);
    const int64_t position = static_cast<int64_t>(counter) * step + store->encoder_offset;
    const uint64_t rollover_at = plan.at_once(FAULT_ENCODER_ROLLOVER);
    return rollover_at ? (position - static_cast<int64_t>(rollover_at) * step) & 0xFFFFFFFF : position;
}

int64_t Camera::next_trigger_ns() {
    switch (trigger_mode()) {
        case TriggerMode::LINE:
            if (!store->line_running && whole(Node::SimLineAutoStart)) line_start(now_ns());
            return exhausted() ? NEVER_NS : std::min(bounce_ns_, line_next_ns());
        case TriggerMode::SOFTWARE:
            return software_triggers_.empty() ? NEVER_NS : software_triggers_.front();
        case TriggerMode::FREE:
            break;
    }
    return exhausted() ? NEVER_NS : free_next_ns_;
}

void Camera::trigger_taken(int64_t time_ns) {
    const auto mode = trigger_mode();
    if (mode == TriggerMode::LINE && time_ns == bounce_ns_) {  // one trigger more, and those of the parts come when they would have
        bounce_ns_ = NEVER_NS;
        bounced_ = true;
        ++store->line_base;
        store->encoder_offset -= whole(Node::SimEncoderStep);
    }
    if (mode == TriggerMode::SOFTWARE && !software_triggers_.empty()) software_triggers_.pop_front();
    if (mode == TriggerMode::FREE) {
        const auto period = static_cast<int64_t>(1e9 / real(Node::AcquisitionFrameRate));
        const int64_t now = now_ns();
        free_next_ns_ = time_ns + period < now - FREE_RUN_SLACK_NS ? now : time_ns + period;
    }
}

void Camera::start_acquisition() {
    const int64_t now = now_ns();
    if (trigger_mode() == TriggerMode::LINE) {
        pass_unseen(now);
    } else {
        store->line_running = 0;
        free_next_ns_ = now;
    }
    software_triggers_.clear();
    last_frame_id = 0;
    next_frame_id = 1;
    const uint64_t wrap_at = plan.at_once(FAULT_WRAP);
    short_ids = wrap_at > store->counter + 1;
    if (short_ids) next_frame_id = 65536 - (wrap_at - store->counter - 1) % 65535;  // so that wrap_at's frame has id 1
    acquiring = true;
}

// ---- image ---------------------------------------------------------------------------------------------------------------

size_t Camera::line_bytes() const {
    const auto pixel = bytes_per_pixel(static_cast<uint32_t>(whole(Node::PixelFormat)));
    return static_cast<size_t>(whole(Node::Width)) * pixel + static_cast<size_t>(whole(Node::SimLinePadding));
}

size_t Camera::payload_bytes() const {
    const size_t padding = plan.has(FAULT_X_PADDING) ? PADDING_BYTES * static_cast<size_t>(whole(Node::Height)) : 0;
    return image_bytes() + padding + 8 * chunk_ids().size();
}

std::vector<uint32_t> Camera::chunk_ids() const {
    std::vector<uint32_t> ids;
    if (whole(Node::ChunkModeActive))
        for (uint32_t i = 0; i < CHUNK_COUNT; ++i)
            if (chunk_enabled_[i]) ids.push_back(i + 1);
    return ids;
}

double Camera::brightness() const {
    return real(Node::ExposureTime) / real(Node::SimNominalExposure) * std::pow(10.0, real(Node::Gain) / 20.0);
}

uint64_t Camera::line_status() const { return (trigger_mode() == TriggerMode::LINE ? 1u : 0u) | store->outputs << 1; }

// ---- registers -----------------------------------------------------------------------------------------------------------

Cell Camera::read(Node node) {
    Cell value = cell(node);
    switch (node) {
        case Node::UserOutputValue: value.whole = store->outputs >> whole(Node::UserOutputSelector) & 1; break;
        case Node::ChunkEnable: value.whole = chunk_enabled_[static_cast<size_t>(whole(Node::ChunkSelector))]; break;
        case Node::CounterValue:
            if (!acquiring) pass_unseen(now_ns());
            value.whole = static_cast<int64_t>(own_count());
            break;
        case Node::EncoderValue: value.whole = encoder(store->counter); break;
        case Node::LineStatusAll: value.whole = static_cast<int64_t>(line_status()); break;
        case Node::PayloadSize: value.whole = static_cast<int64_t>(payload_bytes()); break;
        case Node::SimFramesDelivered: value.whole = static_cast<int64_t>(frames_delivered); break;
        case Node::SimUnderruns: value.whole = static_cast<int64_t>(underruns); break;
        default: break;
    }
    return value;
}

void Camera::write(Node node, Cell value) {
    const NodeInfo& info = NODES[static_cast<size_t>(node)];
    const double number = info.is_float ? value.real : static_cast<double>(value.whole);
    const auto& allowed = info.allowed;
    if (!(number >= info.minimum && number <= info.maximum) ||
        (!allowed.empty() && std::find(allowed.begin(), allowed.end(), value.whole) == allowed.end()))
        throw Error(GC_ERR_INVALID_VALUE, std::string(info.name) + " does not take this value");
    if (info.locked && whole(Node::TLParamsLocked)) throw Error(GC_ERR_ACCESS_DENIED, std::string(info.name) + " is locked");
    switch (node) {
        case Node::UserOutputValue: {
            if (strikes(FAULT_OUTPUT_STUCK, ++store->outputs_written)) return;
            const uint64_t bit = uint64_t{1} << whole(Node::UserOutputSelector);
            store->outputs = value.whole ? store->outputs | bit : store->outputs & ~bit;
            return;
        }
        case Node::ChunkEnable: chunk_enabled_[static_cast<size_t>(whole(Node::ChunkSelector))] = value.whole != 0; return;
        case Node::ExposureTime:
            value.real = std::round(strikes(FAULT_EXPOSURE_REJECTED, ++store->exposures_written) ? std::max(1.0, value.real / 2) : value.real);
            cell(Node::AcquisitionFrameRate).real = std::min(real(Node::AcquisitionFrameRate), 1e6 / value.real);
            break;
        case Node::AcquisitionFrameRate: value.real = std::min(value.real, 1e6 / real(Node::ExposureTime)); break;
        case Node::SimLineRate:
            if (store->line_running && value.real != store->line_rate_hz) {
                store->line_epoch_ns = line_time(store->counter);
                store->line_base = store->counter;
            }
            store->line_rate_hz = value.real;
            break;
        case Node::SimTriggerLimit:
            if (store->line_running && exhausted() && value.whole != whole(node)) {  // go on from now, do not make up for the pause
                store->line_epoch_ns = now_ns();
                store->line_base = store->counter;
            }
            store->line_limit = static_cast<uint64_t>(value.whole);
            break;
        default: break;
    }
    cell(node) = value;
}

void Camera::write_command(Node node) {
    switch (node) {
        case Node::AcquisitionStart: start_acquisition(); break;
        case Node::AcquisitionStop: acquiring = false; break;
        case Node::TriggerSoftware:
            if (!acquiring || trigger_mode() != TriggerMode::SOFTWARE)
                throw Error(GC_ERR_ACCESS_DENIED, "TriggerSoftware needs a running acquisition with TriggerSource Software");
            software_triggers_.push_back(now_ns());
            break;
        case Node::TimestampLatch: cell(Node::TimestampLatchValue).whole = clock(now_ns()); break;
        case Node::SimLineStart: line_start(now_ns()); break;
        case Node::SimFaultApply: apply_fault(); break;
        case Node::SimFaultClear: plan.clear(); break;
        default: break;
    }
}

void Camera::apply_fault() {
    FaultRule rule;
    rule.fault = uint64_t{1} << whole(Node::SimFaultSelector);
    rule.every = static_cast<uint64_t>(whole(Node::SimFaultEvery));
    rule.rate = real(Node::SimFaultRate);
    rule.count = static_cast<uint64_t>(whole(Node::SimFaultCount));
    rule.at = static_cast<uint64_t>(whole(Node::SimFaultAt));
    if (rule.at == 0) rule.at = store->counter + 1;
    rule.duration_ns = std::llround(real(Node::SimFaultDuration) * 1e6);
    plan.add(rule);
}

void Camera::read_register(uint64_t address, void* data, size_t* size) {
    if (address >= STRING_BASE && address < STRING_BASE + STRING_BYTES * STRING_COUNT) {
        const std::string texts[STRING_COUNT] = {"inspector", "SimulatedCamera", serial(), "1.0"};
        std::memset(data, 0, *size);
        const auto& text = texts[(address - STRING_BASE) / STRING_BYTES];
        std::memcpy(data, text.data(), std::min(*size, text.size()));
        return;
    }
    const uint64_t at = (address - REGISTER_BASE) / 8;
    if (address < REGISTER_BASE || at >= NODE_COUNT || address % 8 || *size != 8) throw Error(GC_ERR_INVALID_ADDRESS, "no such register");
    if (!NODES[at].readable) throw Error(GC_ERR_ACCESS_DENIED, std::string(NODES[at].name) + " cannot be read");
    const Cell value = read(static_cast<Node>(at));
    std::memcpy(data, &value, 8);
}

void Camera::write_register(uint64_t address, const void* data, size_t size) {
    const uint64_t at = (address - REGISTER_BASE) / 8;
    if (address < REGISTER_BASE || at >= NODE_COUNT || address % 8 || size != 8) throw Error(GC_ERR_INVALID_ADDRESS, "no such register");
    if (!NODES[at].writable) throw Error(GC_ERR_ACCESS_DENIED, std::string(NODES[at].name) + " cannot be written");
    Cell value{};
    std::memcpy(&value, data, 8);
    if (NODES[at].readable)
        write(static_cast<Node>(at), value);
    else
        write_command(static_cast<Node>(at));
    changed.notify_all();
}

}  // namespace sim
