#include "ndpipe/base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <utility>

#include "ndpipe/base/bytes.h"

namespace ndpipe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kWriteBytes = size_t{64} << 10;
constexpr std::string_view kUnfinished = ".tmp-";  // then the process's number, "-", a count
constexpr int kMaxTakenNames = 100;

bool IsUnfinishedName(std::string_view name) {
  const auto mark = name.rfind(kUnfinished);
  if (mark == name.npos) return false;
  name.remove_prefix(mark + kUnfinished.size());
  const auto dash = name.find('-');
  return dash != name.npos && dash > 0 && dash + 1 < name.size() &&
         name.find_first_not_of("0123456789-") == name.npos &&
         name.find('-', dash + 1) == name.npos;
}

// Opens a regular file for reading and tells its size; the shared start of reading and mapping.
Result<std::pair<FileDescriptor, size_t>> OpenRegular(const fs::path& path, size_t max_bytes) {
  // O_NONBLOCK: a FIFO in a photo folder must give an error, not hang.
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return FailErrno("cannot open " + path.string(), errno);
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return FailErrno("cannot read " + path.string(), errno);
  if (!S_ISREG(info.st_mode)) {
    return Fail(ErrorCode::kInvalidArgument, path.string() + " is not a regular file");
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size > max_bytes) {
    return Fail(ErrorCode::kResourceExhausted, path.string() + " has " + std::to_string(size) +
                                                   " bytes, more than the limit of " +
                                                   std::to_string(max_bytes));
  }
  return std::pair(std::move(fd), size);
}

Status WriteAll(int fd, std::span<const uint8_t> bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FailErrno("cannot write " + path.string(), errno);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.Release();
  }
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

int FileDescriptor::Release() { return std::exchange(fd_, -1); }

Result<std::vector<uint8_t>> ReadFile(const fs::path& path, size_t max_bytes) {
  NDP_ASSIGN(auto opened, OpenRegular(path, max_bytes));
  std::vector<uint8_t> bytes(opened.second);
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::read(opened.first.get(), bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FailErrno("cannot read " + path.string(), errno);
    if (count == 0) break;  // the file shrank under us: the caller's own check of the bytes decides
    done += static_cast<size_t>(count);
  }
  bytes.resize(done);
  return bytes;
}

Status WriteFileDurably(const fs::path& path, std::span<const uint8_t> bytes) {
  NDP_ASSIGN(auto writer, DurableFileWriter::Create(path));
  NDP_RETURN_IF_ERROR(writer.Write(AsText(bytes)));
  return writer.Commit();
}

Status WriteFileDurably(const fs::path& path, std::string_view text) {
  return WriteFileDurably(path, AsBytes(text));
}

DurableFileWriter::DurableFileWriter(fs::path path, fs::path temporary, FileDescriptor fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(std::move(fd)) {}

Result<DurableFileWriter> DurableFileWriter::Create(const fs::path& path) {
  fs::path temporary;
  FileDescriptor fd;
  // A dead process of our number, as in a container, may have left a file of the same name.
  for (int tries = 0; tries < kMaxTakenNames && !fd.valid(); ++tries) {
    temporary = UnfinishedName(path);
    fd = FileDescriptor(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!fd.valid() && errno != EEXIST) break;
  }
  if (!fd.valid()) return FailErrno("cannot create " + temporary.string(), errno);
  return DurableFileWriter(path, std::move(temporary), std::move(fd));
}

DurableFileWriter::~DurableFileWriter() {
  if (fd_.valid()) ::unlink(temporary_.c_str());
}

Status DurableFileWriter::Write(std::string_view text) {
  // What is large goes past the buffer.
  if (buffer_.size() + text.size() > kWriteBytes) NDP_RETURN_IF_ERROR(Flush());
  if (text.size() > kWriteBytes) return WriteAll(fd_.get(), AsBytes(text), path_);
  buffer_ += text;
  return {};
}

Status DurableFileWriter::Flush() {
  NDP_RETURN_IF_ERROR(WriteAll(fd_.get(), AsBytes(buffer_), path_));
  buffer_.clear();
  return {};
}

Status DurableFileWriter::Commit() {
  NDP_CHECK(fd_.valid());
  Status written = Flush();
  if (written && ::fsync(fd_.get()) != 0) {
    written = FailErrno("cannot sync " + path_.string(), errno);
  }
  if (written && ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    written = FailErrno("cannot write " + path_.string(), errno);
  }
  if (!written) ::unlink(temporary_.c_str());
  fd_ = FileDescriptor();
  if (!written) return written;
  return SyncFolder(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

fs::path UnfinishedName(const fs::path& path) {
  static std::atomic<uint64_t> counter{0};
  fs::path name = path;
  name += std::string(kUnfinished) + std::to_string(::getpid()) + "-" + std::to_string(counter++);
  return name;
}

void RemoveUnfinished(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (IsUnfinishedName(entry->path().filename().string())) fs::remove(entry->path(), ignored);
  }
}

Status SyncFolder(const fs::path& folder) {
  FileDescriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return FailErrno("cannot open folder " + folder.string(), errno);
  if (::fsync(fd.get()) != 0) return FailErrno("cannot sync folder " + folder.string(), errno);
  return {};
}

Status MakeFolders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return FailErrno("cannot create folder " + folder.string(), error.value());
  return {};
}

Result<FileLock> FileLock::Acquire(const fs::path& path, std::string_view busy_message) {
  FileDescriptor fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid()) return FailErrno("cannot open lock file " + path.string(), errno);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Fail(ErrorCode::kAlreadyExists, std::string(busy_message));
    return FailErrno("cannot lock " + path.string(), errno);
  }
  return FileLock(std::move(fd));
}

Result<MappedFile> MappedFile::Open(const fs::path& path, size_t max_bytes) {
  NDP_ASSIGN(auto opened, OpenRegular(path, max_bytes));
  if (opened.second == 0) return MappedFile(nullptr, 0);
  void* data = ::mmap(nullptr, opened.second, PROT_READ, MAP_SHARED, opened.first.get(), 0);
  if (data == MAP_FAILED) return FailErrno("cannot map " + path.string(), errno);
  return MappedFile(static_cast<const uint8_t*>(data), opened.second);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

}  // namespace ndpipe
