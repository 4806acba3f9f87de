#include "ndpipe/cli/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "ndpipe/cli/command.h"

namespace ndpipe::cli {
namespace {

class ConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    CLI::App* command = app_.add_subcommand("tuner");
    AddSetting(*command, "-p,--port", port_, "");
    AddSetting(*command, "--state", state_, "")->required();
    app_.add_option("--config", config_);
  }
  void TearDown() override {
    ::unsetenv("NDPIPE_PORT");
    std::filesystem::remove(file_);
  }

  Status Parse(const std::string& toml, std::vector<std::string> arguments) {
    std::ofstream(file_) << toml;
    arguments.insert(arguments.begin(), {"ndpipe", "--config", file_});
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    NDP_RETURN_IF_ERROR(ApplyConfigFile(app_, static_cast<int>(argv.size()), argv.data()));
    app_.parse(static_cast<int>(argv.size()), argv.data());
    return {};
  }

  const std::string file_ = testing::TempDir() + "config_test." + std::to_string(::getpid());
  CLI::App app_;
  int port_ = 1;
  std::string state_;
  std::string config_;
};

TEST_F(ConfigTest, FlagsOverEnvironmentOverFile) {
  const std::string toml = "[tuner]\nport = 2\nstate = \"/from/file\"\n";
  ASSERT_TRUE(Parse(toml, {"tuner"}));
  EXPECT_EQ(port_, 2);
  EXPECT_EQ(state_, "/from/file");
  ::setenv("NDPIPE_PORT", "3", 1);
  ASSERT_TRUE(Parse(toml, {"tuner"}));
  EXPECT_EQ(port_, 3);
  ASSERT_TRUE(Parse(toml, {"tuner", "--port", "4"}));
  EXPECT_EQ(port_, 4);
}

TEST_F(ConfigTest, TopLevelKeysReachEveryCommandThatHasThem) {
  ASSERT_TRUE(Parse("state = \"/s\"\n", {"tuner"}));
  EXPECT_EQ(state_, "/s");
}

TEST_F(ConfigTest, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(Parse("[tuner]\nprot = 2\n", {"tuner"}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Parse("[turner]\nport = 2\n", {"tuner"}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Parse("[tuner]\nport = \"many\"\n", {"tuner"}).error().code,
            ErrorCode::kInvalidArgument);
  const auto broken = Parse("[tuner]\nport = \n", {"tuner"});
  EXPECT_NE(broken.error().message.find("line 2"), std::string::npos) << broken.error().message;
}

}  // namespace
}  // namespace ndpipe::cli
