#include "ndpipe/photo/published/zip_archive.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <libdeflate.h>
#include <unistd.h>
#include <zip.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <span>
#include <string_view>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/photo/published/inflate.h"

namespace ndpipe::photo {
namespace {

// Deflate makes at most 1,032 bytes of one.
constexpr uint64_t kMaxDeflateRatio = 1032;
constexpr size_t kChunkBytes = size_t{4} << 20;

struct CloseEntry {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};
using EntryFile = std::unique_ptr<zip_file_t, CloseEntry>;

// Some writers put backslashes between folders.
bool LeadsOut(std::string_view name) {
  constexpr std::string_view kSeparators = "/\\";
  if (name.find_first_of(kSeparators) == 0) return true;
  while (!name.empty()) {
    const size_t end = std::min(name.find_first_of(kSeparators), name.size());
    if (name.substr(0, end) == "..") return true;
    name.remove_prefix(std::min(end + 1, name.size()));
  }
  return false;
}

std::unexpected<Error> Damaged(std::string_view why) {
  return Fail(ErrorCode::kDataLoss, fmt::format("the zip's entry is damaged: {}", why));
}

// What the archive's directory says of an entry, if it can be read at all.
Status CheckEntry(const zip_stat_t& info, size_t max_bytes) {
  constexpr uint64_t kNeeded = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD |
                               ZIP_STAT_CRC | ZIP_STAT_ENCRYPTION_METHOD;
  if ((info.valid & kNeeded) != kNeeded) return Damaged("its sizes are not known");
  if (info.encryption_method != ZIP_EM_NONE) {
    return Fail(ErrorCode::kInvalidArgument,
                "the zip's entry is encrypted: pack it again without a password");
  }
  if (info.comp_method != ZIP_CM_STORE && info.comp_method != ZIP_CM_DEFLATE) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the zip's entry is compressed by method {}: only stored and deflated "
                            "ones are read",
                            info.comp_method));
  }
  if (info.size > max_bytes || info.comp_size > max_bytes + kChunkBytes) {
    return Fail(ErrorCode::kResourceExhausted,
                fmt::format("the zip's entry has {} bytes ({} compressed), more than the limit of "
                            "{}",
                            info.size, info.comp_size, max_bytes));
  }
  const bool is_stored = info.comp_method == ZIP_CM_STORE;
  if (is_stored ? info.size != info.comp_size : info.size > kMaxDeflateRatio * info.comp_size) {
    return Damaged(fmt::format("{} bytes cannot hold {}", info.comp_size, info.size));
  }
  return {};
}

}  // namespace

struct ZipArchive::Handle {
  explicit Handle(zip_t* opened) : zip(opened) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { zip_discard(zip); }

  std::mutex mutex;
  zip_t* const zip;  // guarded by mutex: not even looking at it is safe from two threads
};

// An entry as it lies in the archive.
struct ZipArchive::Packed {
  std::vector<uint8_t> bytes;
  uint64_t size = 0;  // unpacked
  uint32_t crc = 0;
  bool is_deflated = false;
};

ZipArchive::ZipArchive(std::unique_ptr<Handle> handle, int64_t num_entries)
    : handle_(std::move(handle)), num_entries_(num_entries) {}
ZipArchive::ZipArchive(ZipArchive&&) noexcept = default;
ZipArchive& ZipArchive::operator=(ZipArchive&&) noexcept = default;
ZipArchive::~ZipArchive() = default;

Result<ZipArchive> ZipArchive::Open(const std::filesystem::path& file) {
  int code = 0;
  zip_t* opened = zip_open(file.c_str(), ZIP_RDONLY, &code);
  if (opened == nullptr) {
    if (code == ZIP_ER_NOENT) return Fail(ErrorCode::kNotFound, "there is no " + file.string());
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    std::string message = fmt::format("{} cannot be read as a zip ({}): pack it again",
                                      file.string(), zip_error_strerror(&error));
    zip_error_fini(&error);
    return Fail(code == ZIP_ER_OPEN ? ErrorCode::kPermissionDenied : ErrorCode::kDataLoss,
                std::move(message));
  }
  auto handle = std::make_unique<Handle>(opened);
  const int64_t num_entries = zip_get_num_entries(opened, 0);
  return ZipArchive(std::move(handle), num_entries);
}

std::string ZipArchive::NameOf(int64_t entry) const {
  std::lock_guard lock(handle_->mutex);
  const char* name = zip_get_name(handle_->zip, static_cast<zip_uint64_t>(entry), 0);
  return name == nullptr ? fmt::format("entry {}", entry + 1) : name;
}

Result<ZipArchive::Packed> ZipArchive::ReadPacked(int64_t entry, size_t max_bytes) const {
  std::lock_guard lock(handle_->mutex);
  zip_t* zip = handle_->zip;
  const auto index = static_cast<zip_uint64_t>(entry);
  zip_stat_t info;
  if (zip_stat_index(zip, index, 0, &info) != 0) return Damaged(zip_strerror(zip));
  if (info.name != nullptr && LeadsOut(info.name)) {
    return Fail(ErrorCode::kInvalidArgument,
                "the name of the zip's entry leads out of the archive");
  }
  NDP_RETURN_IF_ERROR(CheckEntry(info, max_bytes));
  const EntryFile file(zip_fopen_index(zip, index, ZIP_FL_COMPRESSED));
  if (file == nullptr) return Damaged(zip_strerror(zip));
  Packed packed{.bytes = {},
                .size = info.size,
                .crc = info.crc,
                .is_deflated = info.comp_method == ZIP_CM_DEFLATE};
  // Grows with what is really there: the directory's claim allocates nothing.
  while (packed.bytes.size() < info.comp_size) {
    const size_t have = packed.bytes.size();
    packed.bytes.resize(std::min<size_t>(info.comp_size, have + kChunkBytes));
    const zip_int64_t count =
        zip_fread(file.get(), packed.bytes.data() + have, packed.bytes.size() - have);
    if (count <= 0) return Damaged("it is cut off");
    packed.bytes.resize(have + static_cast<size_t>(count));
  }
  return packed;
}

Result<std::vector<uint8_t>> ZipArchive::Read(int64_t entry, size_t max_bytes) const {
  NDP_ASSIGN(auto packed, ReadPacked(entry, max_bytes));
  std::vector<uint8_t> bytes;
  if (packed.is_deflated) {
    bytes.resize(packed.size);
    if (auto inflated = Inflate(packed.bytes, Wrapping::kRaw, bytes); !inflated) {
      return Damaged(inflated.error().message);
    }
  } else {
    bytes = std::move(packed.bytes);
  }
  if (libdeflate_crc32(0, bytes.data(), bytes.size()) != packed.crc) {
    return Damaged("its CRC-32 is another one");
  }
  return bytes;
}

std::vector<uint8_t> ZipArchive::ReadHead(int64_t entry, size_t max_bytes) const {
  std::lock_guard lock(handle_->mutex);
  const EntryFile file(zip_fopen_index(handle_->zip, static_cast<zip_uint64_t>(entry), 0));
  std::vector<uint8_t> head(max_bytes);
  const zip_int64_t count = file == nullptr ? 0 : zip_fread(file.get(), head.data(), head.size());
  head.resize(static_cast<size_t>(std::max<zip_int64_t>(count, 0)));
  return head;
}

bool BeginsLikeAZip(const std::filesystem::path& file) {
  FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::array<char, 4> head{};
  if (!fd.valid() || ::read(fd.get(), head.data(), head.size()) != 4) return false;
  const std::string_view begin(head.data(), head.size());
  // The header of an entry, or the end of an archive without any.
  return begin == std::string_view("PK\3\4", 4) || begin == std::string_view("PK\5\6", 4);
}

}  // namespace ndpipe::photo
