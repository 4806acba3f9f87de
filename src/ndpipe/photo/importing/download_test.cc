#include "ndpipe/photo/importing/download.h"

#include <gtest/gtest.h>
#include <httplib.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

class DownloadTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_);
    for (int i = 0; i < 300'000; ++i)
      content_.push_back(static_cast<char>((i * 7 + i / 251) % 256));
    server_.Get("/whole", [&](const httplib::Request& request, httplib::Response& response) {
      ++requests_;
      last_range_ = request.get_header_value("Range");
      response.set_content(content_, "application/gzip");
    });
    // Sends half of what is left, then breaks the connection, as often as dies_ says.
    server_.Get("/dies", [&](const httplib::Request&, httplib::Response& response) {
      ++requests_;
      response.set_content_provider(content_.size(), "application/gzip",
                                    [&](size_t offset, size_t length, httplib::DataSink& sink) {
                                      if (dies_ <= 0)
                                        return sink.write(content_.data() + offset, length);
                                      --dies_;
                                      sink.write(content_.data() + offset, length / 2);
                                      return false;
                                    });
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::jthread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  void TearDown() override {
    server_.stop();
    thread_.join();
    fs::remove_all(folder_);
  }

  DownloadRequest Request(const std::string& path) const {
    return {.url = "http://127.0.0.1:" + std::to_string(port_) + path,
            .file = folder_ / "file",
            .md5 = "3f8873b0f85fd1d7a39cdfbee8fcbe0d",
            .num_attempts = 3,
            .retry_wait_ms = 1};
  }
  void WritePart(std::string_view bytes) const {
    std::ofstream(folder_ / "file.part", std::ios::binary) << bytes;
  }
  bool IsComplete() const {
    const auto bytes = ReadFile(folder_ / "file", 1 << 20);
    return bytes && AsText(*bytes) == content_ && !fs::exists(folder_ / "file.part");
  }

  fs::path folder_ = fs::path(testing::TempDir()) / ("download_test." + std::to_string(::getpid()));
  std::string content_;
  httplib::Server server_;
  int port_ = 0;
  std::atomic<int> requests_ = 0;
  std::atomic<int> dies_ = 0;
  std::string last_range_;
  std::jthread thread_;
};

TEST_F(DownloadTest, FetchesOnceAndTellsProgress) {
  int64_t total = 0;
  const auto progress = [&](int64_t, int64_t total_bytes) { total = std::max(total, total_bytes); };
  const auto done = Download(Request("/whole"), progress, {});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(IsComplete());
  ASSERT_TRUE(Download(Request("/whole"), {}, {}));
  EXPECT_EQ(requests_, 1);
}

TEST_F(DownloadTest, GoesOnWhereItStopped) {
  WritePart(content_.substr(0, 123'456));
  ASSERT_TRUE(Download(Request("/whole"), {}, {}));
  EXPECT_TRUE(IsComplete());
  EXPECT_EQ(last_range_, "bytes=123456-");
}

TEST_F(DownloadTest, APartThatIsTheWholeNeedsNoMore) {
  WritePart(content_);
  ASSERT_TRUE(Download(Request("/whole"), {}, {}));
  EXPECT_TRUE(IsComplete());
}

TEST_F(DownloadTest, AServerThatDiesMidwayIsAskedAgain) {
  dies_ = 2;
  const auto done = Download(Request("/dies"), {}, {});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(IsComplete());
  EXPECT_EQ(requests_, 3);
}

TEST_F(DownloadTest, AServerThatKeepsDyingIsGivenUpAndThePartKept) {
  dies_ = 3;
  const auto done = Download(Request("/dies"), {}, {});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kUnavailable);
  EXPECT_GT(fs::file_size(folder_ / "file.part"), 0U);
  ASSERT_TRUE(Download(Request("/dies"), {}, {}));
  EXPECT_TRUE(IsComplete());
}

TEST_F(DownloadTest, AWrongChecksumRemovesThePart) {
  auto request = Request("/whole");
  request.md5 = std::string(32, '0');
  const auto done = Download(request, {}, {});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kDataLoss);
  EXPECT_FALSE(fs::exists(folder_ / "file"));
  EXPECT_FALSE(fs::exists(folder_ / "file.part"));
}

TEST_F(DownloadTest, ErrorsAreToldAtOnce) {
  EXPECT_EQ(Download(Request("/nothing"), {}, {}).error().code, ErrorCode::kNotFound);
  auto request = Request("/whole");
  request.max_bytes = 1000;
  EXPECT_EQ(Download(request, {}, {}).error().code, ErrorCode::kResourceExhausted);
  request = Request("/whole");
  request.url = "file:///etc/passwd";
  EXPECT_FALSE(Download(request, {}, {}));
  request.url = "http://127.0.0.1:1/x";
  EXPECT_EQ(Download(request, {}, {}).error().code, ErrorCode::kUnavailable);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(Download(Request("/whole"), {}, stop.get_token()).error().code, ErrorCode::kCancelled);
}

TEST_F(DownloadTest, EnvironmentNamesAMirror) {
  ::setenv("NDPIPE_CIFAR100_URL", Request("/whole").url.c_str(), 1);
  ::setenv("NDPIPE_CIFAR100_MD5", Request("/whole").md5.c_str(), 1);
  const auto file = DownloadCifar100(folder_ / "downloads", {}, {});
  ::unsetenv("NDPIPE_CIFAR100_URL");
  ::unsetenv("NDPIPE_CIFAR100_MD5");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(fs::file_size(*file), content_.size());
}

}  // namespace
}  // namespace ndpipe::photo
