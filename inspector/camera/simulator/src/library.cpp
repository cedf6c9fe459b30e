#include "producer.h"
#include <cstring>

namespace sim {
namespace {

constexpr unsigned MAX_CAMERAS = 8;

double number(const std::string& name, double otherwise, double low, double high) {
    const std::string text = environment(name);
    if (text.empty()) return otherwise;
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (end == text.c_str() || *end || !(value >= low && value <= high)) throw Error(GC_ERR_INVALID_VALUE, name + "=" + text + " is not allowed");
    return value;
}

std::string of_camera(const std::string& name, unsigned index) { return environment(name + "_" + std::to_string(index), environment(name)); }

std::vector<CameraConfig> configured() {
    std::vector<CameraConfig> configs(static_cast<unsigned>(number("INSPECTOR_SIM_CAMERAS", 1, 1, MAX_CAMERAS)));
    for (unsigned i = 0; i < configs.size(); ++i) {
        auto& config = configs[i];
        config.index = i;
        config.feed = of_camera("INSPECTOR_SIM_FEED", i);
        config.faults = of_camera("INSPECTOR_SIM_FAULTS", i);
        config.state_folder = environment("INSPECTOR_SIM_STATE");
        config.seed = static_cast<uint64_t>(number("INSPECTOR_SIM_SEED", 0, 0, 9e15));
        config.clock_ppm = number("INSPECTOR_SIM_CLOCK_PPM", 0, -1e4, 1e4);
        // Far from the host's clock unless told otherwise, so that a missing conversion is noticed.
        config.clock_offset_ns = static_cast<int64_t>(number("INSPECTOR_SIM_CLOCK_OFFSET_NS", 1e15 + 1e12 * i, -9e15, 9e15));
    }
    return configs;
}

std::string signature(const std::vector<CameraConfig>& configs) {
    std::string all;
    for (const auto& c : configs)
        all += c.feed + '\n' + c.state_folder + '\n' + c.faults + '\n' + std::to_string(c.seed) + '\n' + std::to_string(c.clock_ppm) + '\n' +
               std::to_string(c.clock_offset_ns) + '\n';
    return all;
}

struct LastError {
    GC_ERROR code = GC_ERR_SUCCESS;
    std::string text;
};
LastError& last_error() {
    static thread_local LastError error;
    return error;
}

}  // namespace

void Handles::add(Object* object) {
    const std::lock_guard<std::mutex> lock(mutex_);
    live_.insert(object);
}

void Handles::remove(Object* object) {
    const std::lock_guard<std::mutex> lock(mutex_);
    live_.erase(object);
}

void Handles::clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    live_.clear();
}

Object& Handles::any(HANDLE handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto* object = static_cast<Object*>(handle);
    if (!live_.count(object)) throw Error(GC_ERR_INVALID_HANDLE, "no such handle");
    return *object;
}

Library& library() {
    static Library* const only = new Library;  // never destroyed: threads of the consumer may outlive main
    return *only;
}

void remember(GC_ERROR code, const std::string& text) { last_error() = {code, text}; }

void Library::open() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (ready) throw Error(GC_ERR_RESOURCE_IN_USE, "the library is initialised already");
    problem.clear();
    try {
        const auto configs = configured();
        if (const auto wanted = signature(configs); cameras.empty() || wanted != configured_by) {
            std::vector<std::unique_ptr<Camera>> fresh;
            for (const auto& config : configs) fresh.push_back(std::make_unique<Camera>(config));
            cameras = std::move(fresh);
            configured_by = wanted;
        }
        for (auto& camera : cameras) {
            const std::lock_guard<std::mutex> camera_lock(camera->mutex);
            camera->initialise();
        }
    } catch (const Error& error) {  // told by TLOpen: consumers close a library that does not open, and its reason with it
        cameras.clear();
        problem = error.what();
    }
    handles.add(&system);
    handles.add(&interface);
    ready = true;
}

void Library::close() {
    std::unique_lock<std::mutex> lock(mutex);
    if (!ready) throw Error(GC_ERR_NOT_INITIALIZED, "the library is not initialised");
    while (!devices.empty()) {
        Device& device = *devices.begin()->second;
        lock.unlock();
        close_device(device);
        lock.lock();
    }
    handles.clear();
    ready = false;
    if (!environment("INSPECTOR_SIM_STATE").empty()) cameras.clear();  // their state lies in files; let those go
}

Camera& Library::camera(const char* id) {
    const std::lock_guard<std::mutex> lock(mutex);
    for (auto& camera : cameras) {
        const std::lock_guard<std::mutex> camera_lock(camera->mutex);
        if (id && camera->id == id && camera->present()) return *camera;
    }
    throw Error(GC_ERR_INVALID_ID, "no such camera");
}

Device& Library::open_device(const char* id) {
    Camera& found = camera(id);
    {
        const std::lock_guard<std::mutex> lock(found.mutex);
        found.open();
    }
    const std::lock_guard<std::mutex> lock(mutex);
    auto& device = devices[&found] = std::make_unique<Device>(found);
    handles.add(device.get());
    handles.add(&device->port);
    return *device;
}

void Library::close_stream(Device& device) {
    if (!device.stream) return;
    device.stream->stop();
    if (device.stream->event) handles.remove(device.stream->event.get());
    handles.remove(device.stream.get());
    device.stream.reset();
}

void Library::close_device(Device& device) {
    close_stream(device);
    Camera& camera = device.camera;
    handles.remove(&device.port);
    handles.remove(&device);
    {
        const std::lock_guard<std::mutex> lock(mutex);
        devices.erase(&camera);
    }
    const std::lock_guard<std::mutex> lock(camera.mutex);
    camera.close();
}

void Answer::bytes(INFO_DATATYPE datatype, const void* data, size_t length) const {
    if (!size) throw Error(GC_ERR_INVALID_PARAMETER, "the size pointer is null");
    if (type) *type = datatype;
    const size_t room = *size;
    *size = length;
    if (!buffer) return;
    if (room < length) throw Error(GC_ERR_BUFFER_TOO_SMALL, "the buffer is too small");
    std::memcpy(buffer, data, length);
}

}  // namespace sim

GENTL_EXPORT GC_ERROR GCGetLastError(GC_ERROR* code, char* text, size_t* size) {
    const auto& last = sim::last_error();
    if (code) *code = last.code;
    try {
        sim::Answer{nullptr, text, size}.text(last.text);
    } catch (const sim::Error& error) {
        return error.code;
    }
    return GC_ERR_SUCCESS;
}
GENTL_EXPORT GC_ERROR GCInitLib() {
    return sim::guarded([] { sim::library().open(); });
}
GENTL_EXPORT GC_ERROR GCCloseLib() {
    return sim::guarded([] { sim::library().close(); });
}
