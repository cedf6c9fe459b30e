// Exported: the library's information, ports (registers and the XML) and events.
#include "producer.h"
#include <algorithm>
#include <cstring>

using namespace sim;

namespace {

const char* const XML =
#include "description.inc"
    ;
constexpr uint64_t XML_ADDRESS = 0x100000;
constexpr const char* XML_NAME = "inspector_simulator.xml";

void library_info(COMMAND command, const Answer& answer) {
    switch (command) {
        case TL_INFO_ID: return answer.text("inspector-simulator");
        case TL_INFO_VENDOR: return answer.text("inspector");
        case TL_INFO_MODEL: return answer.text("Simulator");
        case TL_INFO_VERSION: return answer.text("1.0");
        case TL_INFO_TLTYPE: return answer.text("Custom");  // else consumers parse chunks in a transport's raw layout
        case TL_INFO_NAME:
        case TL_INFO_PATHNAME: return answer.text("inspector_simulator.cti");
        case TL_INFO_DISPLAYNAME: return answer.text("inspector simulator");
        case TL_INFO_CHAR_ENCODING: return answer.i32(0);
        case TL_INFO_GENTL_VER_MAJOR: return answer.u32(1);
        case TL_INFO_GENTL_VER_MINOR: return answer.u32(5);
        default: not_available("this information of the library");
    }
}

const char* module_name(Kind kind) {
    switch (kind) {
        case Kind::SYSTEM: return "TLSystem";
        case Kind::INTERFACE: return "TLInterface";
        case Kind::DEVICE: return "TLDevice";
        case Kind::REMOTE_DEVICE: return "Device";
        case Kind::STREAM: return "TLDataStream";
        case Kind::EVENT: break;
    }
    throw Error(GC_ERR_INVALID_HANDLE, "an event has no port");
}

// Only the camera itself has a description; an empty list of URLs for the other modules would break consumers.
Camera& described(HANDLE handle) {
    Object& object = library().handles.any(handle);
    if (object.kind != Kind::REMOTE_DEVICE) not_available("a description of this module");
    return static_cast<RemotePort&>(object).camera;
}

std::string url() {
    char text[128];
    std::snprintf(text, sizeof text, "local:///%s;%llX;%zX?SchemaVersion=1.1.0", XML_NAME, static_cast<unsigned long long>(XML_ADDRESS),
                  std::strlen(XML));
    return text;
}

void read_port(HANDLE handle, uint64_t address, void* data, size_t* size) {
    if (!data || !size) throw Error(GC_ERR_INVALID_PARAMETER, "null pointer");
    Camera& camera = library().handles.get<RemotePort>(handle, Kind::REMOTE_DEVICE).camera;
    const size_t length = std::strlen(XML);
    if (address >= XML_ADDRESS && address < XML_ADDRESS + length) {
        *size = std::min(*size, static_cast<size_t>(XML_ADDRESS + length - address));
        std::memcpy(data, XML + (address - XML_ADDRESS), *size);
        const std::lock_guard<std::mutex> lock(camera.mutex);
        for (size_t i = 0; camera.xml_broken && i < *size; ++i)
            if (address - XML_ADDRESS + i >= length / 2) static_cast<char*>(data)[i] = '#';
        return;
    }
    std::unique_lock<std::mutex> lock(camera.mutex);
    camera.answer(lock);
    camera.delay_access(lock);
    camera.read_register(address, data, size);
}

void write_port(HANDLE handle, uint64_t address, const void* data, const size_t* size) {
    if (!data || !size) throw Error(GC_ERR_INVALID_PARAMETER, "null pointer");
    Camera& camera = library().handles.get<RemotePort>(handle, Kind::REMOTE_DEVICE).camera;
    std::unique_lock<std::mutex> lock(camera.mutex);
    camera.answer(lock);
    camera.delay_access(lock);
    camera.write_register(address, data, *size);
}

template <class Each> GC_ERROR stacked(PORT_REGISTER_STACK_ENTRY* entries, size_t* count, Each each) {
    return guarded([&] {
        if (!entries || !count) throw Error(GC_ERR_INVALID_PARAMETER, "null pointer");
        const size_t wanted = *count;
        for (*count = 0; *count < wanted; ++*count) each(entries[*count]);
    });
}

EventHandle& event_of(HANDLE handle) { return library().handles.get<EventHandle>(handle, Kind::EVENT); }

}  // namespace

GENTL_EXPORT GC_ERROR GCGetInfo(COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] { library_info(command, {type, buffer, size}); });
}
GENTL_EXPORT GC_ERROR TLGetInfo(HANDLE handle, COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] {
        library().handles.get<Object>(handle, Kind::SYSTEM);
        library_info(command, {type, buffer, size});
    });
}

GENTL_EXPORT GC_ERROR GCReadPort(HANDLE port, uint64_t address, void* data, size_t* size) {
    return guarded([&] { read_port(port, address, data, size); });
}
GENTL_EXPORT GC_ERROR GCWritePort(HANDLE port, uint64_t address, const void* data, size_t* size) {
    return guarded([&] { write_port(port, address, data, size); });
}
GENTL_EXPORT GC_ERROR GCReadPortStacked(HANDLE port, PORT_REGISTER_STACK_ENTRY* entries, size_t* count) {
    return stacked(entries, count, [&](auto& entry) {
        size_t size = entry.size;
        read_port(port, entry.address, entry.data, &size);
        entry.size = size;
    });
}
GENTL_EXPORT GC_ERROR GCWritePortStacked(HANDLE port, PORT_REGISTER_STACK_ENTRY* entries, size_t* count) {
    return stacked(entries, count, [&](auto& entry) {
        const size_t size = entry.size;
        write_port(port, entry.address, entry.data, &size);
    });
}
GENTL_EXPORT GC_ERROR GCGetPortInfo(HANDLE port, COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] {
        const Kind kind = library().handles.any(port).kind;
        const Answer answer{type, buffer, size};
        switch (command) {
            case PORT_INFO_ID:
            case PORT_INFO_MODULE: return answer.text(module_name(kind));
            case PORT_INFO_VENDOR: return answer.text("inspector");
            case PORT_INFO_MODEL: return answer.text("Simulator");
            case PORT_INFO_TLTYPE: return answer.text("Custom");
            case PORT_INFO_VERSION: return answer.text("1.0");
            case PORT_INFO_PORTNAME: return answer.text(kind == Kind::REMOTE_DEVICE ? "Device" : "ModulePort");
            case PORT_INFO_LITTLE_ENDIAN:
            case PORT_INFO_ACCESS_READ:
            case PORT_INFO_ACCESS_WRITE: return answer.flag(true);
            case PORT_INFO_BIG_ENDIAN:
            case PORT_INFO_ACCESS_NA:
            case PORT_INFO_ACCESS_NI: return answer.flag(false);
            default: not_available("this information of the port");
        }
    });
}
GENTL_EXPORT GC_ERROR GCGetNumPortURLs(HANDLE port, uint32_t* count) {
    return guarded([&] {
        described(port);
        *count = 1;
    });
}
GENTL_EXPORT GC_ERROR GCGetPortURL(HANDLE port, char* text, size_t* size) {
    return guarded([&] {
        described(port);
        Answer{nullptr, text, size}.text(url());
    });
}
GENTL_EXPORT GC_ERROR GCGetPortURLInfo(HANDLE port, uint32_t index, COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] {
        described(port);
        if (index) throw Error(GC_ERR_INVALID_INDEX, "there is one URL");
        const Answer answer{type, buffer, size};
        switch (command) {
            case URL_INFO_URL: return answer.text(url());
            case URL_INFO_SCHEMA_VER_MAJOR:
            case URL_INFO_SCHEMA_VER_MINOR:
            case URL_INFO_FILE_VER_MAJOR: return answer.i32(1);
            case URL_INFO_FILE_VER_MINOR:
            case URL_INFO_FILE_VER_SUBMINOR: return answer.i32(0);
            case URL_INFO_FILE_REGISTER_ADDRESS: return answer.u64(XML_ADDRESS);
            case URL_INFO_FILE_SIZE: return answer.u64(std::strlen(XML));
            case URL_INFO_SCHEME: return answer.i32(URL_SCHEME_LOCAL);
            case URL_INFO_FILENAME: return answer.text(XML_NAME);
            default: not_available("this information of the URL");
        }
    });
}

// ---- events: new buffers, and nothing else -------------------------------------------------------------------------------

GENTL_EXPORT GC_ERROR GCRegisterEvent(HANDLE source, COMMAND kind, HANDLE* handle) {
    return guarded([&] {
        Object& object = library().handles.any(source);
        if (object.kind != Kind::STREAM || kind != EVENT_NEW_BUFFER) not_implemented("this kind of event");
        auto& stream = static_cast<Stream&>(object);
        const std::lock_guard<std::mutex> lock(stream.camera.mutex);
        if (stream.event) throw Error(GC_ERR_RESOURCE_IN_USE, "the event is registered already");
        stream.event = std::make_unique<EventHandle>(&stream);
        library().handles.add(stream.event.get());
        *handle = stream.event.get();
    });
}
GENTL_EXPORT GC_ERROR GCUnregisterEvent(HANDLE source, COMMAND kind) {
    return guarded([&] {
        auto& stream = library().handles.get<Stream>(source, Kind::STREAM);
        const std::lock_guard<std::mutex> lock(stream.camera.mutex);
        if (kind != EVENT_NEW_BUFFER || !stream.event) throw Error(GC_ERR_INVALID_PARAMETER, "the event is not registered");
        library().handles.remove(stream.event.get());
        stream.event.reset();
    });
}
GENTL_EXPORT GC_ERROR EventGetData(HANDLE handle, void* data, size_t* size, uint64_t timeout_ms) {
    return guarded([&] {
        EventHandle& event = event_of(handle);
        Stream& stream = *event.stream;
        Camera& camera = stream.camera;
        if (!data || !size || *size < sizeof(EVENT_NEW_BUFFER_DATA)) throw Error(GC_ERR_BUFFER_TOO_SMALL, "the event needs 16 bytes");
        std::unique_lock<std::mutex> lock(camera.mutex);
        const auto woken = [&] { return !stream.output.empty() || event.killed || camera.event_errors || now_ns() < camera.hung_until_ns; };
        if (timeout_ms == UINT64_MAX)
            camera.delivered.wait(lock, woken);
        else
            camera.delivered.wait_for(lock, std::chrono::milliseconds(std::min<uint64_t>(timeout_ms, 3'600'000)), woken);
        if (!camera.dead) camera.answer(lock);  // hangs if the camera hangs; a lost one only stays silent
        if (event.killed) {
            event.killed = false;
            throw Error(GC_ERR_ABORT, "the wait was called off");
        }
        if (camera.event_errors) {
            --camera.event_errors;
            throw Error(GC_ERR_IO, "the wait for a frame failed");
        }
        if (stream.output.empty()) throw Error(GC_ERR_TIMEOUT, "no frame in time");
        Buffer* buffer = stream.output.front();
        stream.output.pop_front();
        buffer->place = Buffer::Place::CONSUMER;
        const EVENT_NEW_BUFFER_DATA answer{buffer, buffer->user};
        std::memcpy(data, &answer, sizeof answer);
        *size = sizeof answer;
    });
}
GENTL_EXPORT GC_ERROR EventGetDataInfo(HANDLE handle, const void* in, size_t in_size, COMMAND command, INFO_DATATYPE* type, void* buffer,
                                       size_t* size) {
    return guarded([&] {
        event_of(handle);
        if (!in || in_size < sizeof(EVENT_NEW_BUFFER_DATA)) throw Error(GC_ERR_INVALID_PARAMETER, "no event data");
        EVENT_NEW_BUFFER_DATA data;
        std::memcpy(&data, in, sizeof data);
        const Answer answer{type, buffer, size};
        if (command == EVENT_DATA_ID) return answer.pointer(data.buffer);
        if (command == EVENT_DATA_VALUE) return answer.pointer(data.user);
        not_available("this information of the event");
    });
}
GENTL_EXPORT GC_ERROR EventGetInfo(HANDLE handle, COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] {
        const EventHandle& event = event_of(handle);
        const Answer answer{type, buffer, size};
        const std::lock_guard<std::mutex> lock(event.stream->camera.mutex);
        switch (command) {
            case EVENT_EVENT_TYPE: return answer.i32(EVENT_NEW_BUFFER);
            case EVENT_NUM_IN_QUEUE: return answer.length(event.stream->output.size());
            case EVENT_NUM_FIRED: return answer.u64(event.fired);
            case EVENT_SIZE_MAX:
            case EVENT_INFO_DATA_SIZE_MAX: return answer.length(sizeof(EVENT_NEW_BUFFER_DATA));
            default: not_available("this information of the event");
        }
    });
}
GENTL_EXPORT GC_ERROR EventFlush(HANDLE handle) {
    return guarded([&] {
        Stream& stream = *event_of(handle).stream;
        const std::lock_guard<std::mutex> lock(stream.camera.mutex);
        for (Buffer* buffer : stream.output) buffer->place = Buffer::Place::CONSUMER;
        stream.output.clear();
    });
}
GENTL_EXPORT GC_ERROR EventKill(HANDLE handle) {
    return guarded([&] {
        EventHandle& event = event_of(handle);
        const std::lock_guard<std::mutex> lock(event.stream->camera.mutex);
        event.killed = true;
        event.stream->camera.delivered.notify_all();
    });
}
