#include "ndpipe/photo/derived/segment_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/hash.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kMagic = 0x3152444E;  // "NDR1"
constexpr size_t kMaxOpenFiles = 256;    // well under the usual limit of 1,024 a process
constexpr size_t kCheckedBytes = 20;     // the header before its CRC
constexpr size_t kWipePiece = size_t{256} << 10;
// What is copied for a write is still in the processor's cache when it is written. Handing the
// items themselves to pwritev was no faster, and with 20 KB each it was slower.
constexpr size_t kWritePiece = size_t{256} << 10;

using RawHeader = std::array<uint8_t, RecordHeader::kBytes>;

RawHeader EncodeHeader(const RecordHeader& header, std::span<const uint8_t> bytes) {
  RawHeader raw;
  std::memcpy(raw.data(), &kMagic, 4);
  std::memcpy(raw.data() + 4, &header.space, 4);
  std::memcpy(raw.data() + 8, &header.number, 8);
  std::memcpy(raw.data() + 16, &header.length, 4);
  const uint32_t crc = Crc32(bytes, Crc32(std::span(raw).first(kCheckedBytes)));
  std::memcpy(raw.data() + 20, &crc, 4);
  return raw;
}

// errno's meaning for a file that cannot grow.
std::unexpected<Error> FailWrite(const fs::path& path, int error_number) {
  if (error_number == EFBIG) error_number = ENOSPC;
  auto failed = FailErrno("cannot write " + path.string(), error_number);
  if (failed.error().code == ErrorCode::kResourceExhausted) {
    failed.error().message += ": free some room; nothing was lost";
  }
  return failed;
}

Status WriteAll(int fd, const fs::path& path, int64_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return FailWrite(path, written == 0 ? ENOSPC : errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += written;
  }
  return {};
}

}  // namespace

size_t ReadRange(const FileDescriptor& file, int64_t offset, std::span<uint8_t> to) {
  size_t done = 0;
  while (done < to.size()) {
    const ssize_t got = ::pread(file.get(), to.data() + done, to.size() - done,
                                offset + static_cast<int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

bool IsRecord(std::span<const uint8_t> record, const RecordHeader& expected) {
  if (record.size() != RecordHeader::kBytes + expected.length) return false;
  const RawHeader raw = EncodeHeader(expected, record.subspan(RecordHeader::kBytes));
  return std::ranges::equal(record.first(RecordHeader::kBytes), raw);
}

fs::path SegmentFiles::PathOf(int64_t segment) const {
  return folder_ / fmt::format("segment-{:06}.bin", segment);
}

Result<std::shared_ptr<FileDescriptor>> SegmentFiles::OpenWith(int64_t segment, int flags) {
  const fs::path path = PathOf(segment);
  const int access = access_ == Access::kRead ? O_RDONLY : O_RDWR;
  FileDescriptor fd(::open(path.c_str(), access | O_CLOEXEC | O_NOFOLLOW | flags, 0600));
  if (!fd.valid()) return FailErrno("cannot open " + path.string(), errno);
  if (open_.size() >= kMaxOpenFiles) {
    open_.erase(std::ranges::min_element(open_, {},
                                         [](const auto& entry) { return entry.second.last_use; }));
  }
  auto file = std::make_shared<FileDescriptor>(std::move(fd));
  open_[segment] = {file, ++uses_};
  return file;
}

Result<std::shared_ptr<FileDescriptor>> SegmentFiles::Open(int64_t segment) {
  std::lock_guard guard(mutex_);
  if (const auto found = open_.find(segment); found != open_.end()) {
    found->second.last_use = ++uses_;
    return found->second.file;
  }
  return OpenWith(segment, 0);
}

Result<std::shared_ptr<FileDescriptor>> SegmentFiles::Create(int64_t segment) {
  std::lock_guard guard(mutex_);
  open_.erase(segment);
  return OpenWith(segment, O_CREAT | O_TRUNC);
}

Status SegmentFiles::Write(int64_t segment, int64_t offset, std::span<const Record> records) {
  NDP_ASSIGN(const auto file, Open(segment));
  std::vector<uint8_t> piece;
  piece.reserve(kWritePiece);
  for (size_t i = 0; i < records.size(); ++i) {
    const Record& record = records[i];
    const RawHeader raw = EncodeHeader(record.header, record.bytes);
    piece.insert(piece.end(), raw.begin(), raw.end());
    piece.insert(piece.end(), record.bytes.begin(), record.bytes.end());
    if (piece.size() < kWritePiece && i + 1 < records.size()) continue;
    NDP_RETURN_IF_ERROR(WriteAll(file->get(), PathOf(segment), offset, piece));
    offset += static_cast<int64_t>(piece.size());
    piece.clear();
  }
  return {};
}

Status SegmentFiles::CutTo(int64_t segment, int64_t size) {
  auto file = Open(segment);
  if (!file && file.error().code == ErrorCode::kNotFound) return {};
  if (!file) return std::unexpected(std::move(file).error());
  struct stat now{};
  if (::fstat((*file)->get(), &now) != 0)
    return FailErrno("cannot examine " + PathOf(segment).string(), errno);
  if (now.st_size > size && ::ftruncate((*file)->get(), size) != 0) {
    return FailErrno("cannot cut " + PathOf(segment).string(), errno);
  }
  return {};
}

Status SegmentFiles::Wipe(int64_t segment, std::span<const ByteRange> ranges) {
  auto file = Open(segment);
  if (!file && file.error().code == ErrorCode::kNotFound) return {};
  if (!file) return std::unexpected(std::move(file).error());
  const fs::path path = PathOf(segment);
  struct stat now{};
  if (::fstat((*file)->get(), &now) != 0)
    return FailErrno("cannot examine " + path.string(), errno);
  static const std::vector<uint8_t> zeros(kWipePiece);
  for (auto [offset, end] : ranges) {
    end = std::min(end, static_cast<int64_t>(now.st_size));
    while (offset < end) {
      const auto piece =
          std::span(zeros).first(std::min(kWipePiece, static_cast<size_t>(end - offset)));
      NDP_RETURN_IF_ERROR(WriteAll((*file)->get(), path, offset, piece));
      offset += static_cast<int64_t>(piece.size());
    }
  }
  if (::fdatasync((*file)->get()) != 0) return FailErrno("cannot sync " + path.string(), errno);
  return {};
}

Result<bool> SegmentFiles::Punch(int64_t segment, const ByteRange& range) {
  const int64_t begin = BlockCeil(range.begin);
  const int64_t length = BlockFloor(range.end) - begin;
  if (length <= 0) return true;
  auto file = Open(segment);
  if (!file && file.error().code == ErrorCode::kNotFound) return false;
  if (!file) return std::unexpected(std::move(file).error());
  int failed = 0;
  do {
    const bool punched =
        ::fallocate((*file)->get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin, length) == 0;
    failed = punched ? 0 : errno;
  } while (failed == EINTR);
  if (failed == EOPNOTSUPP || failed == ENOSYS) return false;
  if (failed != 0) return FailErrno("cannot give back room of " + PathOf(segment).string(), failed);
  return true;
}

Status SegmentFiles::Remove(int64_t segment) {
  if (::unlink(PathOf(segment).c_str()) != 0 && errno != ENOENT) {
    return FailErrno("cannot remove " + PathOf(segment).string(), errno);
  }
  // After the file's name: who opens it meanwhile must not keep its room.
  std::lock_guard guard(mutex_);
  open_.erase(segment);
  return {};
}

Result<std::vector<int64_t>> SegmentFiles::List() const {
  std::vector<int64_t> segments;
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    long long segment = 0;
    if (std::sscanf(name.c_str(), "segment-%lld.bin", &segment) == 1 &&
        PathOf(segment).filename() == name) {
      segments.push_back(segment);
    }
  }
  if (error) return FailErrno("cannot list " + folder_.string(), error.value());
  return segments;
}

}  // namespace ndpipe::photo
