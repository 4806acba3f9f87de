#include "ndpipe/rpc/file_transfer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace ndpipe::rpc {

namespace fs = std::filesystem;

FileReceiver::FileReceiver(fs::path to, fs::path temporary, FileDescriptor fd, int64_t size_bytes)
    : to_(std::move(to)),
      temporary_(std::move(temporary)),
      fd_(std::move(fd)),
      size_bytes_(size_bytes) {}

Result<FileReceiver> FileReceiver::Create(const fs::path& to, int64_t size_bytes,
                                          int64_t max_bytes) {
  if (size_bytes < 0 || size_bytes > max_bytes) {
    return Fail(ErrorCode::kResourceExhausted,
                fmt::format("{} would have {} bytes, more than the limit of {}", to.string(),
                            size_bytes, max_bytes));
  }
  fs::path temporary = UnfinishedName(to);
  FileDescriptor fd(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!fd.valid()) return FailErrno("cannot create " + temporary.string(), errno);
  return FileReceiver(to, std::move(temporary), std::move(fd), size_bytes);
}

FileReceiver::~FileReceiver() {
  if (fd_.valid()) ::unlink(temporary_.c_str());
}

Status FileReceiver::Append(std::span<const uint8_t> bytes) {
  if (static_cast<int64_t>(bytes.size()) > size_bytes_ - received_bytes_) {
    return Fail(ErrorCode::kDataLoss, fmt::format("more than the {} bytes of {} arrived",
                                                  size_bytes_, to_.filename().string()));
  }
  hash_->Update(bytes);
  received_bytes_ += static_cast<int64_t>(bytes.size());
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_.get(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FailErrno("cannot write " + temporary_.string(), errno);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

Result<Hash256> FileReceiver::Finish() {
  if (received_bytes_ != size_bytes_) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("of the {} bytes of {} only {} arrived", size_bytes_,
                            to_.filename().string(), received_bytes_));
  }
  return hash_->Finish();
}

Status FileReceiver::Keep() {
  if (::fsync(fd_.get()) != 0) return FailErrno("cannot sync " + temporary_.string(), errno);
  if (::rename(temporary_.c_str(), to_.c_str()) != 0) {
    return FailErrno("cannot write " + to_.string(), errno);
  }
  fd_ = FileDescriptor();
  return SyncFolder(to_.has_parent_path() ? to_.parent_path() : fs::path("."));
}

Result<FileSender> FileSender::Open(const fs::path& path, int64_t max_bytes) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return FailErrno("cannot open " + path.string(), errno);
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return FailErrno("cannot read " + path.string(), errno);
  if (!S_ISREG(info.st_mode)) {
    return Fail(ErrorCode::kInvalidArgument, path.string() + " is not a regular file");
  }
  if (info.st_size > max_bytes) {
    return Fail(ErrorCode::kResourceExhausted, fmt::format("{} has {} bytes, more than {}",
                                                           path.string(), info.st_size, max_bytes));
  }
  return FileSender(path, std::move(fd), info.st_size);
}

Result<std::span<const uint8_t>> FileSender::Next() {
  const int64_t left = size_bytes_ - sent_bytes_;
  buffer_.resize(static_cast<size_t>(std::min<int64_t>(left, kFileChunkBytes)));
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t count = ::read(fd_.get(), buffer_.data() + done, buffer_.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FailErrno("cannot read " + path_.string(), errno);
    if (count == 0) {
      return Fail(ErrorCode::kDataLoss, path_.string() + " became shorter while it was read");
    }
    done += static_cast<size_t>(count);
  }
  sent_bytes_ += static_cast<int64_t>(done);
  return std::span<const uint8_t>(buffer_);
}

}  // namespace ndpipe::rpc
